"""Which LDAP servers hold the directory, and how they are reached: what the settings say."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from archive.configuration.names import same_name
from archive.configuration.settings import Settings
from archive.errors import ConfigurationError, DirectoryUnavailableError

DEFAULT_BASE = "dc=dcm4che,dc=org"
_SCHEMES = ("ldap", "ldaps", "ldapi")
_BETWEEN = re.compile(r"[\s,]+(?=[a-zA-Z]+://)")
_PASSWORD_CHARS = 4096


@dataclass(frozen=True, slots=True)
class LdapAccess:
    """How to reach one server.

    Attributes
    ----------
    password_file
        Holds the password instead of `password`. It is read whenever a connection is opened, so
        that a new password needs no restart.
    timeout_s
        For connecting, and for each answer.
    """

    url: str
    base_dn: str
    bind_dn: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    ca_file: str | None = None
    start_tls: bool = False
    timeout_s: float = 5.0

    def credentials(self) -> str | None:
        """Return the password to bind with.

        Raises
        ------
        DirectoryUnavailableError
            When the file that holds it cannot be read.
        """
        if self.password_file is None:
            return self.password
        try:
            with Path(self.password_file).open(encoding="utf-8") as file:
                text = file.read(_PASSWORD_CHARS)
        except (OSError, UnicodeDecodeError) as error:
            msg = f"the file of DICOMQ_LDAP_PASSWORD_FILE cannot be read: {error}"
            raise DirectoryUnavailableError(msg) from error
        return text.rstrip("\r\n")


def is_ldap(settings: Settings) -> bool:
    """Tell whether the directory is on LDAP servers, not in a file."""
    return "://" in settings.directory


def ldap_accesses(settings: Settings) -> tuple[LdapAccess, ...]:
    """Return the servers that `settings.directory` names, the preferred one first.

    The URLs stand behind one another with commas or blanks between them; a URL without base DN
    has that of the others.

    Raises
    ------
    ConfigurationError
        When one is no URL of an LDAP server, or when they differ in their base DN.
    """
    parts = [_parse(text) for text in _BETWEEN.split(settings.directory.strip(", \t\n"))]
    bases = [base for _, base in parts if base]
    for base in bases[1:]:
        if not same_name(base, bases[0]):
            msg = (
                f"DICOMQ_DIRECTORY names servers with different base DNs ({bases[0]!r}, {base!r}); "
                "they have to hold the same directory"
            )
            raise ConfigurationError(msg)
    return tuple(
        LdapAccess(
            url=url,
            base_dn=base or (bases[0] if bases else DEFAULT_BASE),
            bind_dn=settings.ldap_bind_dn,
            password=settings.ldap_password,
            password_file=settings.ldap_password_file,
            ca_file=settings.ldap_ca_file,
            start_tls=settings.ldap_start_tls and url.startswith("ldap:"),
            timeout_s=settings.ldap_timeout_s,
        )
        for url, base in dict.fromkeys(parts)
    )


def _parse(text: str) -> tuple[str, str]:
    """Return the URL of a server without its path, and the base DN."""
    parts = urlsplit(text)
    if parts.scheme not in _SCHEMES or (not parts.netloc and parts.scheme != "ldapi"):
        msg = (
            f"DICOMQ_DIRECTORY {text!r} is no LDAP URL; write "
            "ldap://host:389/dc=dcm4che,dc=org, ldaps://..., several of them with blanks between "
            "them, or the path of an LDIF file"
        )
        raise ConfigurationError(msg)
    return f"{parts.scheme}://{parts.netloc}", unquote(parts.path.lstrip("/"))
