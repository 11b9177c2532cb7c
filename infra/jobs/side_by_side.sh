#!/usr/bin/env bash
# Jobs side by side, JOBS at a time. A line of stdin is one: a command, or a function that the caller exports, and words.
#
#   printf 'train 0\ntrain 1\n' | JOBS=2 infra/jobs/side_by_side.sh LOGS
#
# What a job prints goes to a log, of which the last line is shown. One that fails leaves the others running. All that
# failed, here or in calls before that had the same LOGS, are named at the end, with status 1.
set -euo pipefail

export LOGS=$1
mkdir -p "$LOGS"

job() {
  local words=$* log
  words=${words%% --*} log=$LOGS/$(tr -c '[:alnum:]._\n-' - <<<"${words%% --*}").log
  if bash -euo pipefail -c '"$@"' _ "$@" >"$log" 2>&1; then
    echo "$words: $(tail -n 1 "$log")"
  else
    tail -n 5 "$log" >&2
    echo "$words ($log)" >>"$LOGS/failed"
  fi
}
export -f job

xargs -r -P "${JOBS:-2}" -L 1 bash -c 'job "$@"' _
if [[ -s $LOGS/failed ]]; then
  sed 's/^/failed: /' "$LOGS/failed" >&2
  exit 1
fi
