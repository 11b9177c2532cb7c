#!/usr/bin/env bash
# Found, removed, gone: the demo's poisoned pairs are scanned, what looks planted is left out, and CLIP is trained anew.
#
#   infra/jobs/demo-scan.sh [FOLDER]          folder and variables as in demo.sh, of which it takes what is there
#
# Neither scan nor filter opens the ledger; evaluate and assess do. Run it again and it resumes.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "$0")/demo.sh"

say "scan 1/4  look at every pair through the poisoned CLIP, which learned from them"
antidote scan --run "$OUT/runs/poisoned" --dataset "$OUT/poisoned" --backend local --out "$OUT/scan"

say "scan 2/4  leave out what it proposes to remove"
antidote filter --dataset "$OUT/poisoned" --scan "$OUT/scan" --remove auto --out "$OUT/filtered"

say "scan 3/4  pretrain CLIP anew on what is left"
$TRAIN train/pretrain.py clip --preset "$PRESET" --seed "$SEED" --dataset "$OUT/filtered" --out "$OUT/runs/filtered"

say "scan 4/4  open the ledger: was that the poison, and is the attack gone?"
antidote assess --scans "$OUT/scan" --ledger "$OUT/ledger" --out "$OUT/scan-scores"
antidote evaluate --runs "$OUT"/runs/{poisoned,clean,filtered} --ledger "$OUT/ledger" --testsets "$OUT/test" \
  --out "$OUT/scan-scores"

say "found, removed, gone"
antidote report --scan "$OUT/scan" --out "$OUT/scanned"
antidote report --scores "$OUT/scan-scores" --preview "$OUT/preview" --out "$OUT/scan-report"
