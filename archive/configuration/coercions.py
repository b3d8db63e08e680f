"""Coercion rules and attribute sets: what this release cannot do is reported, never passed over."""

from collections.abc import Iterator
from typing import Any

from archive.configuration.attributes_coercion import NOT_PERFORMED
from archive.configuration.descriptors import ArchiveDevice, NetworkAE
from archive.configuration.entries import Entry
from archive.configuration.findings import Findings
from archive.configuration.tree import Tree
from archive.errors import InvalidValueError
from archive.model.coercion import CoercionRule, Occasion, OnFailure, Scheme, Step, UpdatePolicy
from archive.model.identifiers import check_ae_title

_OCCASIONS = {each.value: each for each in Occasion}
_NEWER_SCHEMES = tuple(each for each in Scheme if each is not Scheme.NULLIFY)


def read_coercions(tree: Tree, entry: Entry, findings: Findings) -> tuple[CoercionRule, ...]:
    """Read the coercion rules one level below a device or an AE."""
    rules: list[CoercionRule] = []
    for object_class, read_steps in (
        ("dcmArchiveAttributeCoercion", _legacy_steps),
        ("dcmArchiveAttributeCoercion2", _newer_steps),
    ):
        for one in tree.below(entry, object_class):
            reading = findings.read(one, object_class)
            if not reading.usable:
                continue
            steps = read_steps(one, dict(reading.fields), findings)
            if steps:
                rule = _rule(one, reading.fields, steps, findings=findings)
                rules.append(rule)
    return tuple(rules)


def _rule(
    entry: Entry, fields: dict[str, Any], steps: tuple[Step, ...], *, findings: Findings
) -> CoercionRule:
    occasion = _OCCASIONS.get(f"{fields['dimse'].upper()} {fields['role']}")
    if occasion is None:
        reason = (
            f"{fields['dimse']} with role {fields['role']} is not coerced by this release, only "
            f"{', '.join(Occasion)} are; the rule does nothing"
        )
        findings.report(entry.dn, "dcmDIMSE", reason, "warning")
    kept = ("name", "priority", "sop_classes", "conditions")
    return CoercionRule(
        **{name: fields[name] for name in kept if name in fields},
        occasion=occasion,
        steps=steps,
        is_legacy=entry.has_class("dcmArchiveAttributeCoercion"),
        dn=entry.dn,
    )


def _legacy_steps(entry: Entry, fields: dict[str, Any], findings: Findings) -> tuple[Step, ...]:
    """Return the steps of a legacy rule in the order in which the reference takes them."""
    for attribute, feature in NOT_PERFORMED.items():
        if entry.values(attribute):
            reason = f"{feature} is not supported by this release; the rest of the rule applies"
            findings.report(entry.dn, attribute, reason, "warning")
    made = _maker(fields, OnFailure.CONTINUE)
    steps: list[Step] = []
    if fields.get("as_received"):
        steps.append(made(Scheme.AS_RECEIVED))
    if "leading_c_find_scp" in fields:
        steps.append(made(Scheme.LEADING, argument=fields["leading_c_find_scp"]))
    if fields.get("trim"):
        steps.append(made(Scheme.TRIM))
    if fields.get("nullify_tags"):
        steps.append(made(Scheme.NULLIFY, tags=fields["nullify_tags"]))
    if fields.get("merge_attributes"):
        steps.append(made(Scheme.MERGE, attributes=fields["merge_attributes"]))
    return tuple(steps)


def _newer_steps(entry: Entry, fields: dict[str, Any], findings: Findings) -> tuple[Step, ...]:
    """Return the one step of a rule of the newer form; none when its scheme is not supported."""
    scheme_text, _, argument = str(fields["uri"]).partition(":")
    scheme = next((each for each in _NEWER_SCHEMES if each.lower() == scheme_text.lower()), None)
    if scheme is None:
        schemes = ", ".join(_NEWER_SCHEMES)
        reason = (
            f"scheme {scheme_text}: is not supported by this release, only {schemes} are; the "
            "rule is set aside"
        )
        findings.report(entry.dn, "dcmURI", reason, "warning")
        return ()
    if scheme is Scheme.LEADING:
        try:
            argument = check_ae_title(argument)
        except InvalidValueError as error:
            findings.report(entry.dn, "dcmURI", f"{error}; the rule is set aside")
            return ()
    made = _maker(fields, OnFailure.RETHROW)
    return (made(scheme, argument=argument, attributes=fields.get("merge_attributes", ())),)


def _maker(fields: dict[str, Any], on_failure: OnFailure) -> Any:  # noqa: ANN401 - a partial of Step
    def make(scheme: Scheme, **more: Any) -> Step:  # noqa: ANN401 - fields of a step
        return Step(
            scheme,
            policy=UpdatePolicy(fields.get("policy", UpdatePolicy.MERGE)),
            sufficient=fields.get("sufficient", False),
            on_failure=OnFailure(fields.get("on_failure", on_failure)),
            rule=fields["name"],
            **more,
        )

    return make


def read_leading_sets(tree: Tree, entry: Entry, findings: Findings) -> dict[str, tuple[int, ...]]:
    """Read the attribute sets for leading archives below the device: tags by their ID."""
    return dict(_leading_sets(tree, entry, findings))


def _leading_sets(
    tree: Tree, entry: Entry, findings: Findings
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for one in tree.below(entry, "dcmAttributeSet"):
        reading = findings.read(one, "dcmAttributeSet")
        fields = reading.fields
        wanted = fields.get("set_type", "").upper() == "LEADING_CFIND_SCP"
        if reading.usable and wanted and fields.get("installed", True):
            yield fields["set_id"], fields["tags"]


def check_coercions(
    device: ArchiveDevice, remote_aes: dict[str, NetworkAE], findings: Findings
) -> None:
    """Report leading archives that nobody can ask, and answers that are kept for ever."""
    rules = [
        *device.coercion_rules,
        *(rule for ae in device.aes.values() for rule in ae.coercion_rules),
    ]
    leading = [
        (rule, step) for rule in rules for step in rule.steps if step.scheme is Scheme.LEADING
    ]
    for rule, step in leading:
        if step.argument not in remote_aes:
            attribute = "dcmLeadingCFindSCP" if rule.is_legacy else "dcmURI"
            reason = (
                f"there is no AE {step.argument} in the directory; it cannot be asked until there "
                "is one, and what waits for it goes on as dcmCoercionOnFailure says"
            )
            findings.report(rule.dn, attribute, reason, "warning")
    unbounded = device.leading_c_find_scp_query_cache_size == 0
    if leading and unbounded and not device.leading_c_find_scp_query_cache_stale_timeout_s:
        reason = (
            "0 keeps any number of answers, and dcmLeadingCFindSCPQueryCacheStaleTimeout does not "
            "say for how long; PT5M holds, set it"
        )
        findings.report(device.dn, "dcmLeadingCFindSCPQueryCacheSize", reason, "warning")
