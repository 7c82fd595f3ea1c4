"""What a checkpoint was made with: versions and devices. Training goes on bit for bit only on the same."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

PACKAGES = ("jax", "jaxlib", "optax", "penzai", "jax-toolshed")


def describe(shardings: Iterable[Any]) -> dict[str, Any]:
    """Versions, precision and devices, as plain data.

    Args:
      shardings: those of the state's arrays, which tell the mesh.
    """
    shardings = [sharding for sharding in shardings if isinstance(sharding, jax.sharding.Sharding)]
    devices = {device for sharding in set(shardings) for device in sharding.device_set}
    return {
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "x64": is_x64(),
        "devices": {
            "platform": ",".join(sorted({device.platform for device in devices})),
            "kind": ",".join(sorted({device.device_kind for device in devices})),
            "count": len(devices),
        },
        "mesh": _mesh(shardings),
    }


def is_x64() -> bool:
    """Whether jax computes in double precision here."""
    return jax.dtypes.canonicalize_dtype(np.float64) == np.float64


@functools.cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _mesh(shardings: Iterable[jax.sharding.Sharding]) -> dict[str, int] | None:
    """The axes of the first mesh and their sizes; None without one."""
    for sharding in shardings:
        if isinstance(sharding, jax.sharding.NamedSharding):
            return {str(name): int(size) for name, size in sharding.mesh.shape.items()}
    return None


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """In words, what differs between two environments: ``jax 0.10.0, now 0.10.2``."""
    found = []
    theirs, ours = saved.get("versions"), now["versions"]
    theirs = theirs if isinstance(theirs, Mapping) else {}
    for name in PACKAGES:
        if name in theirs and name in ours and theirs[name] != ours[name]:
            found.append(f"{name} {theirs[name]}, now {ours[name]}")
    if bool(saved.get("x64")) != now["x64"]:
        found.append(f"jax_enable_x64 {'on' if saved.get('x64') else 'off'}, now the other way")
    if saved.get("devices") != now["devices"]:
        found.append(f"{_devices(saved.get('devices'))}, now {_devices(now['devices'])}")
    elif saved.get("mesh") != now["mesh"]:
        found.append(f"{_axes(saved.get('mesh'))}, now {_axes(now['mesh'])}")
    return tuple(found)


def _devices(devices: Any) -> str:
    if not isinstance(devices, Mapping):
        return "unknown devices"
    count = devices.get("count")
    return f"{count} {devices.get('kind')} device{'' if count == 1 else 's'}"


def _axes(mesh: Any) -> str:
    if not isinstance(mesh, Mapping) or not mesh:
        return "no mesh"
    return "the mesh " + ", ".join(f"{name}={size}" for name, size in mesh.items())
