"""The LDIF files that the documentation of dcm4chee prints, with OpenLDAP's own tools and ours."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from archive.configuration.defaults import default_folder
from tests.directory_cases import DEVICE, WIKI_EXPORTER, WIKI_EXTERNAL, WIKI_LEADING
from tests.fix_process import free_port
from tests.fix_slapd import SCHEMA, MakeSlapd, Slapd
from workers.commands.config import config

WITHOUT_LAST_HYPHEN = WIKI_LEADING.removesuffix("-\n")


@pytest.fixture
def server(make_slapd: MakeSlapd) -> Slapd:
    """Slapd with the default directory as it is shipped."""
    files = sorted(default_folder().glob("*.ldif"))
    texts = [path.read_bytes().removeprefix(b"version: 1\n") for path in files]
    return make_slapd(b"\n".join(texts))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "wiki.ldif"


def attributes(server: Slapd, name: str) -> str:
    return server.ldapsearch("-s", "sub", f"({name}=*)", name)


def run(server: Slapd, *arguments: str) -> tuple[int, str]:
    environment = {
        "DICOMQ_DATA": str(server.directory),
        "DICOMQ_DIRECTORY": f"{server.url}/{server.base_dn}",
        "DICOMQ_LDAP_BIND_DN": server.bind_dn,
        "DICOMQ_LDAP_PASSWORD": server.password,
    }
    done = CliRunner().invoke(config, arguments, env=environment)
    return done.exit_code, done.output


def test_the_exporter_with_ldapadd(server: Slapd, file: Path) -> None:
    file.write_text(WIKI_EXPORTER)
    done = server.ldapadd(file)
    assert done.returncode == 0, done.stderr
    assert "dcmQueueName: Export1" in attributes(server, "dcmQueueName")


def test_the_external_retrieve_with_ldapmodify(server: Slapd, file: Path) -> None:
    file.write_text(WIKI_EXTERNAL)
    done = server.ldapmodify(file)
    assert done.returncode == 0, done.stderr
    assert ": DCM4CHEE" in attributes(server, "dcmExternalRetrieveAEDestination")


def test_the_leading_archive_needs_its_last_hyphen_deleted(server: Slapd, file: Path) -> None:
    """OpenLDAP's tools take everything of the page but the hyphen below the entry it adds."""
    file.write_text(WIKI_LEADING)
    printed = server.ldapmodify(file, "-a", "-c")
    assert printed.returncode != 0
    assert "missing attributeDescription" in printed.stderr
    assert "cn=Leading DCMQRSCP" not in attributes(server, "dcmLeadingCFindSCP")
    assert ": 50" in attributes(server, "dcmLeadingCFindSCPQueryCacheSize")
    added = WITHOUT_LAST_HYPHEN.partition("\n\n")[2].partition("\n\n")[2]
    file.write_text(added)
    assert server.ldapadd(file).returncode == 0
    assert "dcmLeadingCFindSCP: QRSCP" in attributes(server, "dcmLeadingCFindSCP")


def test_the_leading_archive_with_ldapmodify(server: Slapd, file: Path) -> None:
    file.write_text(WITHOUT_LAST_HYPHEN)
    done = server.ldapmodify(file, "-a")
    assert done.returncode == 0, done.stderr
    assert "dcmLeadingCFindSCP: QRSCP" in attributes(server, "dcmLeadingCFindSCP")


def test_all_three_unchanged_with_our_command(server: Slapd, tmp_path: Path) -> None:
    files = []
    for number, text in enumerate((WIKI_EXPORTER, WIKI_EXTERNAL, WIKI_LEADING)):
        files.append(str(tmp_path / f"{number}.ldif"))
        Path(files[-1]).write_text(text)
    status, output = run(server, "diff", *files)
    assert status == 1
    assert "refused" not in output
    status, output = run(server, "import", "--dry-run", *files)
    assert status == 0, output
    assert "STORESCP" not in server.ldapsearch("(objectClass=dcmExporter)", "1.1")
    status, output = run(server, "import", *files)
    assert status == 0, output
    assert "ignored (ldapadd would refuse it)" in output
    for name in ("dcmQueueName", "dcmExternalRetrieveAEDestination", "dcmLeadingCFindSCP"):
        assert attributes(server, name)
    assert run(server, "check")[0] == 0
    assert "QRSCP" in run(server, "export")[1]


@pytest.mark.parametrize("tool", ["ldapmodify", "config import"])
def test_our_samples(server: Slapd, tool: str) -> None:
    folder = default_folder().parent / "samples"
    names = ["exporter", "ian", "export-rule", "external-retrieve", "leading-archive"]
    files = [folder / f"{name}.ldif" for name in names]
    assert set(files) == set(folder.glob("*.ldif"))
    if tool == "ldapmodify":
        for path in files:
            done = server.ldapmodify(path, "-a")
            assert done.returncode == 0, done.stderr
    else:
        status, output = run(server, "import", *map(str, files))
        assert status == 0, output
    status, output = run(server, "check")
    assert status == 0, output


THREE_CHANGES = f"""\
dn: {DEVICE}
changetype: modify
replace: dicomDescription
dicomDescription: first

dn: {DEVICE}
changetype: modify
replace: dicomManufacturer
dicomManufacturer: %s

dn: {DEVICE}
changetype: modify
replace: dicomDescription
dicomDescription: third
"""


def test_what_is_applied_before_a_refusal_stays_and_is_named(server: Slapd, file: Path) -> None:
    file.write_text(THREE_CHANGES.replace("dicomManufacturer", "nonsense") % "second")
    status, output = run(server, "import", str(file))
    assert status == 1
    assert output.count(f'modify "{DEVICE}"') == 2
    assert f"{file} line 6: ldap_modify: Undefined attribute type (17)" in output
    assert "1 record applied, 1 refused, 1 not tried" in output
    assert "what was applied stays; mend the refused record and import again with --con" in output
    assert ": first" in attributes(server, "dicomDescription")
    status, output = run(server, "import", "--continue", str(file))
    assert (status, "2 records applied, 1 refused, 0 not tried" in output) == (1, True)
    assert ": third" in attributes(server, "dicomDescription")


def test_what_is_applied_before_a_server_breaks_off_is_named(server: Slapd, file: Path) -> None:
    too_long = "x" * 2**24  # more than slapd takes in one request: it closes the connection
    file.write_text(THREE_CHANGES % too_long)
    status, output = run(server, "import", str(file))
    assert status == 2
    assert output.count(f'modify "{DEVICE}"') == 1
    assert f'whether "{DEVICE}" (line 6) was applied is unknown, what was applied bef' in output
    assert ": first" in attributes(server, "dicomDescription")
    assert not attributes(server, "dicomManufacturer")


def test_an_export_of_a_server_fills_another(server: Slapd, make_slapd: MakeSlapd) -> None:
    target = server.directory / "export.ldif"
    status, output = run(server, "export", str(target))
    assert status == 0, output
    other = make_slapd(target.read_bytes())
    assert run(other, "export")[1].encode() == target.read_bytes()
    url = f"{other.url}/{other.base_dn}"
    assert run(server, "diff", "--against", url) == (0, "0 attributes of 0 entries differ\n")
    other.change(
        f"dn: {DEVICE}\nchangetype: modify\nreplace: dcmTaskFetchSize\ndcmTaskFetchSize: 9\n"
    )
    status, output = run(server, "diff", "--against", url)
    assert status == 1
    assert "dcmTaskFetchSize" in output


def test_the_default_directory_fills_an_empty_server(slapd: Slapd) -> None:
    files = [str(path) for path in sorted(default_folder().glob("*.ldif"))]
    status, output = run(slapd, "check")
    assert status == 2
    assert "import the default directory" in output
    assert run(slapd, "import", "--dry-run", *files)[0] == 0
    status, output = run(slapd, "import", *files)
    assert status == 0, output
    assert run(slapd, "check") == (0, "0 problems, 0 of them errors\n")


def test_the_schema_as_ldif_loads_into_a_running_server(tmp_path: Path) -> None:
    """For servers that keep their configuration in cn=config."""
    server = Slapd(tmp_path, free_port(), bind_dn="cn=config", schemas=False)
    server.start()
    try:
        done = server.ldapadd(SCHEMA / "dicomq.ldif")
        assert done.returncode == 0, done.stderr
    finally:
        server.stop()


def test_commands_say_when_the_server_is_down(server: Slapd) -> None:
    assert run(server, "check")[0] == 0
    server.kill()
    status, output = run(server, "check")
    assert status == 1
    assert "the directory is unreachable" in output
    assert "the local copy of" in output
    for command in (("export",), ("diff", "--against", __file__)):
        status, output = run(server, *command)
        assert status == 2
        assert server.url in output
