#!/usr/bin/env bash
# Bar: the README's two commands on a fresh clone in a new folder, with no .venv.
# Usage: benchmarks/clean_clone.sh [FOLDER]      (default: a temporary folder)
set -euo pipefail
source=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
target=${1:-$(mktemp -d)}/fsrl_ext
git clone --quiet "$source" "$target"
cd "$target"
time make test
time make train
