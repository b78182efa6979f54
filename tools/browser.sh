#!/usr/bin/env bash
# Makes a Chromium available for the browser tests: the one that is there, else Debian's package, else Playwright's own; without its windows,
# which takes less of a processor, where it is installed here.
# With --japanese, a font for pictures of Japanese pages as well.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = --japanese ] && [ -z "$(fc-list :lang=ja)" ]; then
  sudo=""
  if [ "$(id -u)" -ne 0 ]; then sudo="sudo -n"; fi
  $sudo apt-get update -qq >&2 && $sudo apt-get install -y -qq --no-install-recommends fonts-ipafont-gothic >&2
fi
for name in chromium-headless-shell chromium chromium-browser google-chrome; do
  if command -v "$name" > /dev/null; then exit 0; fi
done
if .venv/bin/python - <<'PYTHON'
import pathlib, sys
from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    sys.exit(not pathlib.Path(playwright.chromium.executable_path).exists())
PYTHON
then exit 0; fi

if command -v apt-get > /dev/null; then
  sudo=""
  if [ "$(id -u)" -ne 0 ]; then sudo="sudo -n"; fi
  echo "Installing Chromium by apt-get" >&2
  export DEBIAN_FRONTEND=noninteractive
  if $sudo apt-get update -qq >&2 && $sudo apt-get install -y -qq chromium-headless-shell fonts-liberation >&2; then exit 0; fi
  echo "apt-get could not; trying Playwright's installer" >&2
fi
.venv/bin/playwright install --with-deps --only-shell chromium >&2
