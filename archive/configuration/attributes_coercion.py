"""Rows of the table of attributes: coercion rules of both forms, attribute sets."""

from archive.configuration.rows import Attribute, Kind, many, must, one, vital

_COMMON = (
    must("name", "cn", Kind.TEXT, "name of the rule"),
    must("dimse", "dcmDIMSE", Kind.TEXT, "message that is coerced"),
    must("role", "dicomTransferRole", Kind.ROLE, "role of the peer"),
    one("priority", "dcmRulePriority", Kind.INTEGER, "higher goes first"),
    many("sop_classes", "dcmSOPClass", Kind.UID, "SOP classes; else all"),
    vital("conditions", "dcmProperty", Kind.CONDITIONS, "what is meant; all have to hold"),
    one("policy", "dcmAttributeUpdatePolicy", Kind.UPDATE_POLICY, "how attributes come together"),
    vital("merge_attributes", "dcmMergeAttribute", Kind.MERGE, "attributes set, emptied, removed"),
)

COERCION = (
    *_COMMON,
    one("leading_c_find_scp", "dcmLeadingCFindSCP", Kind.AE_TITLE, "leading archive"),
    many("nullify_tags", "dcmNullifyTag", Kind.TAG, "attributes that are emptied"),
    one("trim", "dcmTrimISO2022CharacterSet", Kind.BOOLEAN, "ISO 2022 code to ISO_IR code"),
    one("as_received", "dcmRetrieveAsReceived", Kind.BOOLEAN, "send without earlier coercions"),
)

COERCION_2 = (
    *_COMMON,
    must("uri", "dcmURI", Kind.TEXT, "scheme and argument of the coercion"),
    one("sufficient", "dcmCoercionSufficient", Kind.BOOLEAN, "no rule after it once it applied"),
    one("on_failure", "dcmCoercionOnFailure", Kind.ON_FAILURE, "what follows when it fails"),
)

ATTRIBUTE_SET = (
    must("set_type", "dcmAttributeSetType", Kind.TEXT, "what the set is for"),
    must("set_id", "dcmAttributeSetID", Kind.TEXT, "name of the set; AE title or *"),
    Attribute("tags", "dcmTag", Kind.TAG, "tags of the set", many=True, required=True),
    one("installed", "dicomInstalled", Kind.BOOLEAN, "switch of the entry"),
)

NOT_PERFORMED = {
    "dcmURI": "XSLT style sheets",
    "dcmDeIdentification": "de-identification",
    "dcmMergeMWLMatchingKey": "merging of worklist items",
    "dcmMergeMWLTemplateURI": "merging of worklist items",
    "dcmMergeMWLSCP": "merging of worklist items",
    "dcmSupplementFromDeviceReference": "supplementing from a device",
    "dcmNullifyIssuerOfPatientID": "nullifying issuers of patient IDs",
    "dcmIssuerOfPatientIDFormat": "derived issuers of patient IDs",
    "dcmUseCallingAETitleAs": "use of the calling AE title",
}
"""Attributes of legacy rules whose feature this release has not."""
