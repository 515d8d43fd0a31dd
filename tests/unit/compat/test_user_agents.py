"""The device of a User-Agent."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from homewire.compat.user_agents import UserAgentDevice, device_of

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("user_agent", "device"),
    [
        (
            f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/113.0.0.0 Safari/537.36",
            UserAgentDevice("browser", "Chrome", "113.0.0", "113.0.0.0", "Windows", "10"),
        ),
        (
            "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0",
            UserAgentDevice("browser", "Firefox", "115.0", "115.0", "Ubuntu", ""),
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 16_5 like Mac OS X) AppleWebKit/605.1.15 "
            "(KHTML, like Gecko) Version/16.5 Mobile/15E148 Safari/604.1",
            UserAgentDevice("browser", "Mobile Safari", "16.5", "16.5", "iOS", "16.5"),
        ),
        (
            f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Rocket.Chat/3.9.0 Chrome/108.0.5359.62 "
            "Electron/22.0.0 Safari/537.36",
            UserAgentDevice("desktop-app", "Rocket.Chat", "3.9.0", "3.9.0", "Windows", "10"),
        ),
        (
            "RC Mobile; iOS 12.2; v3.4.0 (250)",
            UserAgentDevice("mobile-app", "RC Mobile", "3.4.0", "3.4.0 250", "iOS", "12.2"),
        ),
        ("RC Mobile", UserAgentDevice("mobile-app", "RC Mobile", "", "", "", "")),
        (
            "Homewire/1.2 CFNetwork/1404.0.5 Darwin/22.3.0",
            UserAgentDevice("mobile-app", "Homewire", "1.2", "1.2", "iOS", "16.3"),
        ),
        ("okhttp/4.9.1", UserAgentDevice("mobile-app", "okhttp", "4.9.1", "4.9.1", "", "")),
        ("curl/8.5.0", UserAgentDevice("other", "curl", "8.5.0", "8.5.0", "", "")),
        ("Python/3.11 aiohttp/3.9.1", UserAgentDevice("other", "Python aiohttp", "3.9.1", "3.9.1", "", "")),
        ("Thermostat/2.0", UserAgentDevice("other", "Thermostat", "2.0", "2.0", "", "")),
        ("", UserAgentDevice()),
        ("\u00e4 \ud800 \x7f; (", UserAgentDevice()),
    ],
)
def test_user_agent_tells_program_and_system(user_agent: str, device: UserAgentDevice) -> None:
    assert device_of(user_agent) == device


@pytest.mark.parametrize(
    "user_agent",
    ["x" * 100_000, "Mozilla/5.0 (" + "; Android " * 20_000, "RC Mobile; " + "a " * 50_000, "1/1." * 25_000],
)
def test_long_user_agents_are_parsed_quickly(user_agent: str) -> None:
    device_of("curl/1")  # Compiles the patterns.
    began = time.thread_time()
    device_of(user_agent)
    assert time.thread_time() - began < 0.1


def test_patterns_are_loaded_on_first_use() -> None:
    program = "import sys, homewire.compat.user_agents; print('ua_parser' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "False"


FIRST_USE = """
import asyncio, time
from homewire.compat.user_agents import device_of, load_patterns

async def first_use():
    await load_patterns()
    device_of("Lynx/2.9 made for this test")

thread, process = time.thread_time(), time.process_time()
asyncio.run(first_use())
print((time.thread_time() - thread) / (time.process_time() - process))
"""


def test_first_use_compiles_the_patterns_beside_the_event_loop() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_USE], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 0.5, "part of the processor time that the loop's thread used"
