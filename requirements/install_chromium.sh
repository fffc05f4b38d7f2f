#!/usr/bin/env bash
# Install Debian's Chromium, in which tests/rag/test_page.py opens the service's page. Nothing happens when it is there.
# usage: requirements/install_chromium.sh     Without root or apt-get those tests are skipped: never an error.
set -euo pipefail
if [ -x /usr/bin/chromium ]; then
  exit 0
fi
install_packages() {
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk
}
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && install_packages >/dev/null; then
  echo "chromium: installed"
else
  echo "chromium: not found and not installed; the tests of the page are skipped"
fi
