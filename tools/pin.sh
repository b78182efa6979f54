#!/usr/bin/env bash
# Writes requirements.txt and requirements-dev.txt anew from the .in files: the whole closure, resolved in fresh environments.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

freeze() { # the packages of an environment, without torch's local version label
  "$1/bin/pip" freeze --exclude pip | sed 's/+cpu$//' | sort -f
}

"${PYTHON:-python3.11}" -m venv "$work/site"
"$work/site/bin/pip" install --quiet -r requirements.in
freeze "$work/site" > "$work/site.txt"
"$work/site/bin/pip" install --quiet -r requirements-dev.in
freeze "$work/site" > "$work/all.txt"
"$work/site/bin/pip" check

{ sed -n '/^#/p' requirements.txt; cat "$work/site.txt"; } > "$work/requirements.txt"
{ sed -n '/^#/p' requirements-dev.txt; echo "-r requirements.txt"; grep -vxFf "$work/site.txt" "$work/all.txt"; } > "$work/requirements-dev.txt"
mv "$work/requirements.txt" requirements.txt
mv "$work/requirements-dev.txt" requirements-dev.txt
