#!/usr/bin/env bash
# All tests that need a GPU, and the benches of training, on this machine's GPU: no network, 25 minutes at most.
#
#   infra/jobs/gpu.sh [FOLDER]         default: gpu        infra/jobs/gpu.sh --list      the steps and what each may take
#   DEVICE=cpu infra/jobs/gpu.sh       everything once, tiny, on a CPU                   MINUTES=9: begin no more than fits
#
# Give it again and it runs what is not done. It needs Python with torch, torchvision and what comes with them; what else
# is missing is installed from WHEELS (made by `make gpu-wheels` where there is a network) into FOLDER/site, for this
# alone. The tables go to PAGE too: infra/gpu.md, or from a CPU nowhere.
set -euo pipefail
cd "$(dirname "$0")/../.."

PYTHON=${PYTHON:-python3} DEVICE=${DEVICE:-cuda} MINUTES=${MINUTES:-25} WHEELS=${WHEELS:-gpu-wheels}
if [ "${1:-}" = --list ]; then exec "$PYTHON" -m tests.gpu.kit --list; fi
OUT=${1:-gpu}
PAGE=${PAGE-$([ "$DEVICE" = cpu ] || echo infra/gpu.md)}

mkdir -p "$OUT"
PYTHONPATH="$PWD:$(cd "$OUT" && pwd)/site${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
if ! "$PYTHON" -m tests.gpu.needed >/dev/null && compgen -G "$WHEELS/*.whl" >/dev/null; then
  "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$OUT/site" "$WHEELS"/*.whl
fi
"$PYTHON" -m tests.gpu.kit --device "$DEVICE" --minutes "$MINUTES" --wheels "$WHEELS" --out "$OUT" ${PAGE:+--page "$PAGE"}
