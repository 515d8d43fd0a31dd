"""The demo's sensors: this machine's cores, memory, disks and network interfaces report once a second.

Each sensor is a device with its own key and sends events through ``PUT /devices/{id}/event``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import psutil
import structlog

from homewire.client import Trust
from homewire.clock import MACHINE_CLOCK
from homewire.demo import DemoDevice

INTERVAL_S = 1.0
ANSWER_S = 5.0
COMPLAIN_EVERY_S = 60.0

# Short-lived interfaces of container runtimes, which are not part of the machine.
PASSING_INTERFACES = ("veth", "br-", "cali", "docker")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a sensor: the class of its device, and an event."""

    device_class: str
    event_type: str
    data: dict[str, Any]


class Sensors:
    """Reads the sensors. Rates are averages since the previous read. `read` blocks for some milliseconds."""

    def __init__(self) -> None:
        self._disks = _disks()
        self._before: dict[str, Any] = {}
        self._before_at = MACHINE_CLOCK.monotonic()
        psutil.cpu_percent(percpu=True)  # psutil's first result has no previous call to compare with.

    def read(self) -> dict[str, Reading]:
        """One reading of every sensor, by the sensor's name, e.g. ``cpu-0`` or ``disk-/home``."""
        return {**self._cores(), **_memory(), **self._disk_usage(), **self._interfaces()}

    def _cores(self) -> dict[str, Reading]:
        loads = psutil.cpu_percent(percpu=True)
        return {
            f"cpu-{core}": Reading("cpu", "cpu-load", {"core": core, "percent": load})
            for core, load in enumerate(loads)
        }

    def _disk_usage(self) -> dict[str, Reading]:
        readings = {}
        for mount in self._disks:
            try:
                usage = psutil.disk_usage(mount)
            except OSError:
                continue  # The disk was unmounted.
            data = {
                "mount": mount,
                "totalBytes": usage.total,
                "freeBytes": usage.free,
                "percent": usage.percent,
            }
            readings[f"disk-{mount}"] = Reading("disk", "disk-usage", data)
        return readings

    def _interfaces(self) -> dict[str, Reading]:
        now, counters = MACHINE_CLOCK.monotonic(), psutil.net_io_counters(pernic=True)
        seconds = max(now - self._before_at, 0.001)
        readings = {}
        for name, counter in counters.items():
            if name.startswith(PASSING_INTERFACES):
                continue
            before = self._before.get(name, counter)
            data = {
                "interface": name,
                "receivedBytesPerSecond": round((counter.bytes_recv - before.bytes_recv) / seconds),
                "sentBytesPerSecond": round((counter.bytes_sent - before.bytes_sent) / seconds),
            }
            readings[f"network-{name}"] = Reading("network", "network-traffic", data)
        self._before, self._before_at = counters, now
        return readings


def _memory() -> dict[str, Reading]:
    memory = psutil.virtual_memory()
    data = {"totalBytes": memory.total, "availableBytes": memory.available, "percent": memory.percent}
    return {"memory": Reading("memory", "memory-usage", data)}


def _disks() -> list[str]:
    """The shortest mount point of each disk; the root where nothing is listed (containers)."""
    mounts: dict[str, str] = {}
    for partition in sorted(psutil.disk_partitions(), key=lambda partition: len(partition.mountpoint)):
        if os.path.isdir(partition.mountpoint):
            mounts.setdefault(partition.device, partition.mountpoint)
    return sorted(mounts.values()) or ["/"]


class Reporter:
    """Sends the readings of this machine's sensors to the homewire at `url`, as the devices given.

    `tls` is what to trust there.
    """

    def __init__(self, url: str, sensors: Sensors, devices: Iterable[DemoDevice], tls: Trust = True) -> None:
        self._url = url
        self._tls = tls
        self._sensors = sensors
        self._devices = {device.sensor: device for device in devices}
        self._failing = False
        self._complained_at = float("-inf")

    async def run(self) -> None:
        """Report once a second until cancelled. A failure is logged, and the next reading is sent."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        # One connection for each device, because all devices report at the same time.
        connector = aiohttp.TCPConnector(limit=len(self._devices) or 1, ssl=self._tls)
        async with aiohttp.ClientSession(self._url, timeout=timeout, connector=connector) as http:
            due = MACHINE_CLOCK.monotonic()
            while True:
                readings = await asyncio.to_thread(self._sensors.read)
                await self._report(http, readings)
                due = max(due + INTERVAL_S, MACHINE_CLOCK.monotonic())
                await asyncio.sleep(due - MACHINE_CLOCK.monotonic())

    async def _report(self, http: aiohttp.ClientSession, readings: Mapping[str, Reading]) -> None:
        sends = [
            self._send(http, self._devices[name], reading)
            for name, reading in readings.items()
            if name in self._devices
        ]
        problems = [problem for problem in await asyncio.gather(*sends) if problem is not None]
        self._note(problems, len(sends))

    async def _send(self, http: aiohttp.ClientSession, device: DemoDevice, reading: Reading) -> str | None:
        """Send one reading. Returns what went wrong, without key or URL."""
        headers = {"Authorization": f"ModeCloud {device.key}"}
        body = {"eventType": reading.event_type, "eventData": reading.data}
        try:
            async with http.put(f"/devices/{device.device_id}/event", json=body, headers=headers) as response:
                return None if response.status == 204 else f"answer {response.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            return type(error).__name__

    def _note(self, problems: list[str], sent: int) -> None:
        """Log failures at most once a minute, and the recovery from a logged failure."""
        now = MACHINE_CLOCK.monotonic()
        if problems and now - self._complained_at >= COMPLAIN_EVERY_S:
            kinds = sorted(set(problems))
            log.warning("sensors could not report", failed=len(problems), of=sent, problems=kinds)
            self._complained_at, self._failing = now, True
        elif not problems and self._failing:
            log.info("sensors report again")
            self._failing = False
