"""A drill as JUnit's XML, for who collects results of tests: a case for each guarantee, one for the end, one for the undoing."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

from drill import verdicts


def text(said: dict[str, Any]) -> str:
    """The file's content. said: of report.summary."""
    suite = ET.Element(
        "testsuite", name=f"drill {said['fault']} on {said['guest']}", timestamp=said["time"].rstrip("Z")
    )
    for one in said["guarantees"]:
        case = ET.SubElement(
            suite, "testcase", classname=f"drill.{said['fault']}", name=f"{one['name']} {one['title']}"
        )
        if one["verdict"] == verdicts.VIOLATED:
            ET.SubElement(case, "failure", message=one["evidence"])
        elif one["verdict"] == verdicts.NOT_LOOKED_AT:
            ET.SubElement(case, "skipped", message=one["evidence"])
        else:
            ET.SubElement(case, "system-out").text = one["evidence"]
    case = ET.SubElement(suite, "testcase", classname=f"drill.{said['fault']}", name="protected at the end")
    if said["problem"] or not said["protected"]:
        words = "; ".join(filter(None, [said["problem"], *said["missing"]])) or "the guest is not protected"
        ET.SubElement(case, "failure", message=f"{words}. Next: {'; '.join(said['next'])}")
    case = ET.SubElement(suite, "testcase", classname=f"drill.{said['fault']}", name="the fault is undone")
    for one in said["undone"]:
        if one.get("error"):
            ET.SubElement(case, "failure", message=f"{one['host']}: {one['error']}")
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set(
        "failures", str(len({id(case) for case in suite.findall("testcase") if case.find("failure") is not None}))
    )
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    suite.set("errors", "0")
    suites = ET.Element("testsuites")
    suites.append(suite)
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"
