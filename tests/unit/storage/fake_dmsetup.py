"""What `dmsetup` says and does. Arguments: a JSON file of devices, one of their numbers, and then dmsetup's own."""

import fcntl
import json
import sys
from pathlib import Path

FILE, NUMBERS = Path(sys.argv[1]), Path(sys.argv[2])
ARGUMENTS = sys.argv[3:]


def fail(text):
    """As dmsetup fails."""
    print(text, file=sys.stderr)
    print("Command failed.", file=sys.stderr)
    sys.exit(1)


def live(table):
    """A table as the kernel shows it: devices by number."""
    numbers = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    return " ".join(numbers.get(word, word) for word in table.split())


def swap(device, verb, data):
    """Take the loaded table live, or forget it."""
    if verb == "resume" and "loaded" in device and device.get("refuses"):
        FILE.write_text(json.dumps(data))
        fail("device-mapper: resume ioctl failed: Invalid argument")
    loaded = device.pop("loaded", device["table"])
    device["table"] = loaded if verb == "resume" else device["table"]


def main():
    """One call."""
    data = json.loads(FILE.read_text())
    devices = data["devices"]
    data["calls"].append(" ".join(ARGUMENTS))
    verb, rest = ARGUMENTS[0], ARGUMENTS[1:]
    if verb == "ls":
        print("\n".join(f"{name}\t(253:{n})" for n, name in enumerate(devices)) or "No devices found")
        return
    words = [word for word in rest if not word.startswith("-")]
    name = rest[-1] if verb == "info" else words[0]
    if verb == "create":
        table = rest[rest.index("--table") + 1]
        if name in devices:
            fail("device-mapper: create ioctl failed: Device or resource busy")
        devices[name] = {"table": live(table), "open": 0}
    elif name not in devices:
        fail(f"Device {name} not found")
    elif verb == "table":
        print(devices[name]["table"])
    elif verb == "status":
        table = devices[name]["table"].split()
        extra = f"raid1 2 {devices[name].get('legs', 'AA')} 8/8 idle 0 0 -" if table[2] == "raid" else ""
        print(*table[:3], extra)
    elif verb == "info":
        print(devices[name]["open"])
    elif verb == "load":
        devices[name]["loaded"] = live(rest[rest.index("--table") + 1])
    elif verb in ("resume", "clear"):
        swap(devices[name], verb, data)
    elif verb == "remove":
        if devices[name]["open"]:
            fail("device-mapper: remove ioctl failed: Device or resource busy")
        del devices[name]
    elif verb != "suspend":
        fail(f"Unknown command {verb}")
    FILE.write_text(json.dumps(data))


with FILE.with_suffix(".lock").open("w") as turn:  # several run at the same time
    fcntl.flock(turn, fcntl.LOCK_EX)
    main()
