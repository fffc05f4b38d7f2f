#!/usr/bin/env bash
# Write what each environment is made of, in CycloneDX 1.6, to outputs/sbom/: names, versions and hashes of the locks.
# The writer has an environment of its own there.
set -euo pipefail
cd "$(dirname "$0")/.."
out=outputs/sbom
mkdir -p "$out"
[ -x "$out/venv/bin/cyclonedx-py" ] || {
  "${PYTHON:-python3}" -m venv "$out/venv"
  "$out/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/sbom.lock
}
for lock in rag cpu gpu; do
  "$out/venv/bin/cyclonedx-py" requirements "requirements/$lock.lock" --pyproject pyproject.toml \
    --output-reproducible --of JSON -o "$out/$lock.cdx.json"
done
echo "bill of materials: $out/rag.cdx.json, cpu.cdx.json, gpu.cdx.json"
