"""The supply chain: known vulnerabilities of the pinned packages, licences of the installed ones, a bill of materials.

    make audit            (writes build/licences.md and build/sbom.json)

pip-audit, pip-licenses and CycloneDX run in environments of their own, by uv, at the versions below. Exit code 1 where
a pinned package has a known vulnerability. Where the service that knows them does not answer, that is said.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = {
    "pip-audit": "pip-audit==2.10.1",
    "pip-licenses": "pip-licenses==5.5.5",
    "cyclonedx-py": "cyclonedx-bom==7.5.0",
}


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a tool by uv; its environment is made on the first call."""
    uv = Path(sys.executable).with_name("uv")
    line = [str(uv), "tool", "run", "--quiet", "--from", TOOLS[tool], tool, *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True)


def vulnerabilities() -> list[str]:
    """A line for each known vulnerability of a pin. Raises RuntimeError where nobody could be asked."""
    lock = str(ROOT / "requirements.lock")
    done = run(
        "pip-audit", "-r", lock, "--require-hashes", "--disable-pip", "-f", "json", "--progress-spinner=off"
    )
    return found_in(done.stdout, done.stderr)


def found_in(said: str, errors: str) -> list[str]:
    """The vulnerabilities in pip-audit's JSON."""
    try:
        packages = json.loads(said)["dependencies"]
    except (ValueError, KeyError):
        raise RuntimeError((errors.strip().splitlines() or ["no answer"])[-1][:200]) from None
    # An index that knows no vulnerabilities has pip-audit skip every package and report that all is well.
    if skipped := [package["name"] for package in packages if "skip_reason" in package]:
        raise RuntimeError(
            f"{len(skipped)} of {len(packages)} packages are not known there, {skipped[0]} is one"
        )
    return [
        f"{package['name']} {package['version']}: {known['id']}, fixed in {', '.join(known['fix_versions']) or '-'}"
        for package in packages
        for known in package["vulns"]
    ]


def main() -> None:
    """Entry point."""
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    try:
        found = vulnerabilities()
        print(*(found or ["No known vulnerability in requirements.lock."]), sep="\n")
    except RuntimeError as error:
        found = []
        print(
            f"NOT AUDITED: no vulnerability service answers from here ({error}). Run make audit where one does."
        )
    python = sys.executable
    licences = run("pip-licenses", "--python", python, "--format=markdown", "--order=license")
    sbom = run("cyclonedx-py", "environment", python, "--output-reproducible", "-o", str(build / "sbom.json"))
    if licences.returncode or sbom.returncode:
        sys.exit(f"error: {(licences.stderr + sbom.stderr).strip()[-500:]}")
    (build / "licences.md").write_text(licences.stdout, encoding="utf-8")
    print(f"{len(licences.stdout.splitlines()) - 2} packages: build/licences.md, build/sbom.json")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
