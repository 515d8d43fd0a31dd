"""The client that a User-Agent describes (data models, *Rocket.Chat sessions*)."""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

from homewire.store.checks import header

if TYPE_CHECKING:
    from ua_parser.core import OS, UserAgent
    from ua_parser.regex import Resolver

MAX_PARSED: Final = 512
"""Characters of a User-Agent that are parsed; the rest is ignored."""

_REMEMBERED: Final = 2048
"""Parsed User-Agents that are cached: most are shared by many users."""

_PRODUCT: Final = re.compile(r"(?:^|\s)(?P<name>[\w.+!~-]++)/v?(?P<version>\d++(?:\.\d++)*+)")
_NUMBERS: Final = re.compile(r"\d++(?:\.\d++){0,2}")
_DOTTED: Final = re.compile(r"[\d.]++")
_BUNDLE: Final = re.compile(r"\(?(\w++)\)?")
_OF_A_BROWSER: Final = ("Mozilla/", "Opera/")
_ENGINES: Final = frozenset({"Mozilla", "AppleWebKit", "Gecko", "Chrome", "Electron", "Safari", "Version"})
"""Products that every User-Agent of an Electron app names. What else it names is the app."""
_MOBILE_SYSTEMS: Final = frozenset({"Android", "iOS"})
_ROCKET_CHAT_MOBILE: Final = "RC Mobile"
"""The mobile app of Rocket.Chat: `RC Mobile; iOS 12.2; v3.4.0 (250)`."""
_COMPILED_AT_ONCE: Final = 40
"""Patterns that are compiled in one call, which holds the interpreter for some 5 ms."""
_COMPILING: Final = threading.Lock()
_COMPILED: Final = threading.Event()


@dataclass(frozen=True, slots=True)
class UserAgentDevice:
    """The program that logged in, and its system. A part that the User-Agent lacks is empty."""

    type: str = "other"
    """`browser`, `mobile-app`, `desktop-app`, or `other`: a library, a bot, nothing known."""
    name: str = ""
    """Of the browser or app."""
    version: str = ""
    """At most three numbers of it, e.g. 113.0.0."""
    long_version: str = ""
    os_name: str = ""
    os_version: str = ""


async def load_patterns() -> None:
    """Compile the patterns in a thread, once in a process."""
    if not _COMPILED.is_set():
        await asyncio.to_thread(_compile)


@lru_cache(_REMEMBERED)
def device_of(user_agent: str) -> UserAgentDevice:
    """The device that the value of a User-Agent header describes.

    A new User-Agent takes some 20 µs, whatever is in it: these patterns cannot backtrack. Await
    `load_patterns` before, or the first call takes some 0.2 s.
    """
    text = header(user_agent, MAX_PARSED).strip()
    mobile = _rocket_chat_mobile(text)
    if mobile is not None:
        return mobile
    browser, system = _known_browser(text)
    os_name, os_version = (system.family, _version(system)) if system else ("", "")
    kind = _kind(text, os_name)
    name, version = _desktop_app(text) if kind == "desktop-app" else ("", "")
    if not name and browser is not None:
        name, version = browser.family, _version(browser)
    if not name:
        name, version = _first_product(text)
    return _device(kind, name, version, os_name, os_version)


def _device(kind: str, name: str, long_version: str, os_name: str, os_version: str) -> UserAgentDevice:
    numbers = _NUMBERS.match(long_version)
    return UserAgentDevice(kind, name, numbers[0] if numbers else "", long_version, os_name, os_version)


def _rocket_chat_mobile(text: str) -> UserAgentDevice | None:
    """The mobile app of Rocket.Chat; None for another client."""
    product, *rest = (part.strip(" ") for part in text.split(";"))
    if product != _ROCKET_CHAT_MOBILE or len(rest) > 2:
        return None
    system, program = [*rest, "", ""][:2]
    os_name, blank, os_version = system.rpartition(" ")
    if not blank or not _DOTTED.fullmatch(os_version):
        os_name, os_version = system, ""
    version, blank, bundle = program.removeprefix("v").partition(" ")
    named = _BUNDLE.fullmatch(bundle)
    if (program and not _DOTTED.fullmatch(version)) or (blank and named is None):
        return None
    long_version = f"{version} {named[1]}" if named else version
    return _device("mobile-app", _ROCKET_CHAT_MOBILE, long_version, os_name, os_version)


def _kind(text: str, os_name: str) -> str:
    if " Electron/" in text:
        return "desktop-app"
    if " CFNetwork/" in text:
        # The product that Apple's HTTP client names for an app without a User-Agent of its own.
        return "mobile-app" if os_name in _MOBILE_SYSTEMS else "desktop-app"
    if text.startswith(("okhttp/", "Dalvik/")):
        return "mobile-app"
    return "browser" if text.startswith(_OF_A_BROWSER) and os_name else "other"


def _desktop_app(text: str) -> tuple[str, str]:
    for product in _PRODUCT.finditer(text):
        if product["name"] not in _ENGINES:
            return product["name"], product["version"]
    return "", ""


def _first_product(text: str) -> tuple[str, str]:
    product = _PRODUCT.match(text)
    return (product["name"], product["version"]) if product else ("", "")


def _version(found: UserAgent | OS) -> str:
    numbers = (found.major, found.minor, found.patch, found.patch_minor)
    return ".".join(each for each in numbers if each)


def _known_browser(text: str) -> tuple[UserAgent | None, OS | None]:
    from ua_parser.core import Domain

    browser = system = None
    for resolver in _resolvers():
        found = resolver(text, Domain.USER_AGENT | Domain.OS)
        # The patterns are in the order of their precedence.
        browser, system = browser or found.user_agent, system or found.os
        if browser and system:
            break
    return browser, system


def _compile() -> None:
    with _COMPILING:
        _resolvers()
        _COMPILED.set()


@cache
def _resolvers() -> list[Resolver]:
    # Imported here: few nodes are ever asked, and the patterns take 17 MB.
    from ua_parser.loaders import load_lazy_builtins
    from ua_parser.regex import Resolver

    user_agents, systems, _devices = load_lazy_builtins()
    count = max(len(user_agents), len(systems))
    return [
        Resolver((user_agents[at : at + _COMPILED_AT_ONCE], systems[at : at + _COMPILED_AT_ONCE], []))
        for at in range(0, count, _COMPILED_AT_ONCE)
    ]
