#!/usr/bin/env bash
# Every defence against six attacks on one recipe, its baseline beside it: what it leaves, and at what cost. The result is
# in defense/measured.md.
#
#   infra/jobs/defenses.sh [FOLDER]     default: attacks, the folder of attacks.sh: its victims are the ones that are cured
#   PART=finetune ATTACKS="blended badclip" METHODS="mmcl cleanclip" LRS=8e-3 SEEDS=0 infra/jobs/defenses.sh    a part
#   PART=none infra/jobs/defenses.sh    trains nothing: measures and draws what is there
#
# The first of PLANNED is the seed of the frontiers; on all of them stands the chosen value, learning rates having been
# chosen on seed 100, another book. The tables name every run that is planned, whether it is there or not. Run it again
# and it resumes; what failed is named at the end. About three minutes a finetuning and a core, and 30 to 45 seconds an
# epoch of pretraining.
set -euo pipefail
cd "$(dirname "$0")/../.."

OUT=${1:-attacks} PLANNED=${PLANNED:-0 1 2} JOBS=${JOBS:-2} PORT=${PORT:-8918}
ROWS=${ROWS:-12000} CLEAN_ROWS=${CLEAN_ROWS:-4600} LABELLED=${LABELLED:-2000} PICTURES=${PICTURES:-1400}
PRESET=${PRESET:-demo} FINETUNE_PRESET=${FINETUNE_PRESET:-demo-finetune} EPOCHS=${EPOCHS:-7} TARGETED=${TARGETED:-108}
SEEDS=${SEEDS:-$PLANNED} PART=${PART:-finetune pretrain} ATTACKS=${ATTACKS:-} METHODS=${METHODS:-}
LRS=${LRS:-} LENGTHS=${LENGTHS:-} # of the finetunings the learning rates, of the pretrainings the epochs
export OUT JOBS PORT ROWS CLEAN_ROWS LABELLED PICTURES PRESET FINETUNE_PRESET EPOCHS TARGETED
export OMP_NUM_THREADS=1 RAY_AUTH_MODE=disabled

VICTIMS="badnet badnet-noise blended wanet-jitter-1 label_consistent badclip"

# Part, method, the learning rates or epochs of its frontier, those of all seeds (the last is the chosen one; -: none, and
# one seed), and its objective with flags. Pretrainings stand side by side at equal epochs of CLIP's own loss: of five
# epochs with --match-every 5, four are. The other lengths are there for CLIP at the accuracy that roclip has. @ is the
# seed's folder: what starts from a run there is trained when all others are.
methods() {
  grep -v '^#' <<'END'
finetune  mmcl          4e-3,8e-3,16e-3  8e-3   mmcl
finetune  cleanclip     4e-3,8e-3,16e-3  8e-3   cleanclip
finetune  tacleaner     4e-3,8e-3,16e-3  16e-3  tacleaner --subcaption-share 1
finetune  supervised    8e-3,16e-3       8e-3   supervised --epochs 20
pretrain  augmented     3,6,8,12,18,24   12,24  augmented --crop 0.5
pretrain  roclip        15,30            15,30  roclip --match-every 5 --pool-size 128 --crop 0.5
pretrain  roclip-k3     18,27            -      roclip --match-every 3 --crop 0.5
pretrain  safeclip      24               -      safeclip --inmodal-epochs 3 --slow-rate 0.1 --safe-growth 0.05 --crop 0.5
pretrain  roclip-after  1                1      roclip --match-every 1 --pool-size 128 --crop 0.5 --lr 1e-3 --pretrained @/robust/augmented-12
END
}
cells() { # every training that is planned: PART SEED ATTACK METHOD VALUE chosen|tried OBJECTIVE FLAGS...
  local attack seed place part method frontier chosen flags values value mark
  for attack in $VICTIMS robust; do
    for place in 0 1 2 3 4 5; do # of the frontiers
      methods | while read -r part method frontier chosen flags; do
        case $part,$attack in finetune,robust) continue ;; pretrain,robust | finetune,*) ;; *) continue ;; esac
        IFS=, read -ra values <<<"$frontier"
        value=${values[place]:-} mark=tried
        if [[ $value == "${chosen##*,}" ]]; then mark=chosen; fi
        for seed in $PLANNED; do
          if [[ $value && (",$chosen," == *",$value,"* || $seed == "${PLANNED%% *}") ]]; then
            echo "$part $seed $attack $method $value $mark $flags"
          fi
        done
      done
    done
  done
}
is() { [[ -z $2 || " $2 " == *" $1 "* ]]; } # VALUE WANTED: empty is any
wanted() { # of the cells
  local part seed attack method value rest some
  cells | while read -r part seed attack method value rest; do
    some=$LRS
    if [[ $part == pretrain ]]; then some=$LENGTHS; fi
    if is "$part" "$PART" && is "$seed" "$SEEDS" && is "$attack" "$ATTACKS" && is "$method" "$METHODS" && is "$value" "$some"
    then echo "$part $seed $attack $method $value $rest"; fi
  done
}

place() { # PART ATTACK METHOD VALUE: the run's folder in the seed's
  case $1,$3 in
    *,floor) echo runs/clean ;;
    *,undefended) echo "runs/$2" ;;
    finetune,*) echo "defended/$2/$3-$4" ;;
    pretrain,*) echo "robust/$3-$4" ;;
  esac
}
planned() { # PART: the lines of its table, tab-separated, for antidote frontier
  local knob=lr part seed attack method value mark one
  if [[ $1 == pretrain ]]; then knob=epochs; fi
  echo "attack method $knob seed mark scores run" | tr ' ' '\t'
  {
    for seed in $PLANNED; do
      for attack in $VICTIMS; do printf "finetune $seed $attack %s - tried\n" floor undefended; done
      echo "pretrain $seed robust floor - tried"
    done
    cells
  } | while read -r part seed attack method value mark _; do
    if [[ $part != "$1" ]]; then continue; fi
    scores=defended-scores/$attack ledgers=$attack
    if [[ $attack == robust ]]; then scores=robust-scores ledgers="robust-blended robust"; fi
    for one in $ledgers; do
      printf '%s\t' "$one" "$method" "$value" "$seed" "$mark" "small-s$seed/$scores"
      echo "small-s$seed/$(place "$part" "$attack" "$method" "$value")"
    done
  done
}

sets() { # SEED: clean pairs that no victim saw, and labelled images
  local here=$OUT/small-s$1 pages=(picturebook --book-seed "$1" --picture-size 32 --port "$PORT")
  antidote prepare "${pages[@]}" --start "$ROWS" --rows "$CLEAN_ROWS" --timeout-seconds 2 \
    --disjoint-from "$here/train" --out "$here/clean"
  antidote testset "${pages[@]}" --split train --samples "$LABELLED" --out "$here/labelled"
}
stack() { # SEED: pairs that carry two attacks, so that one pretraining answers for both
  local here=$OUT/small-s$1
  antidote poison blended --alpha 0.2 --budget 0.005 --trigger-seed "$1" --seed "$1" --backend local \
    --dataset "$here/train" --out "$here/poisoned/robust-blended" --ledger "$here/ledgers/robust-blended"
  antidote poison targeted --testset "$here/targets" --split targets --images 8 --budget "$TARGETED" \
    --images-seed "$1" --seed "$1" --backend local --taken "$here/ledgers/robust-blended" \
    --dataset "$here/poisoned/robust-blended" --out "$here/poisoned/robust" --ledger "$here/ledgers/robust"
}
train() { # PART SEED ATTACK METHOD VALUE MARK OBJECTIVE FLAGS...
  local part=$1 seed=$2 attack=$3 value=$5 here=$OUT/small-s$2 dataset=poisoned/$3 knob=--epochs
  local out script=pretrain preset=$PRESET
  out=$here/$(place "$part" "$attack" "$4" "$value")
  shift 6
  if [[ $part == finetune ]]; then
    knob=--lr dataset=clean
    if [[ $1 == supervised ]]; then dataset=labelled/train; fi
    set -- "$@" --pretrained "@/runs/$attack"
  fi
  if [[ $* == *--pretrained* ]]; then script=finetune preset=$FINETUNE_PRESET; fi
  python "train/$script.py" "${@//@/$here}" --preset "$preset" "$knob" "$value" --seed "$seed" \
    --dataset "$here/$dataset" --out "$out"
}
measure() { # PART SCORES: what is finished of the runs that these scores are planned of
  local here=$OUT/${2%%/*} runs=() ledgers=() attack run some=
  while IFS=$'\t' read -r attack run; do
    ledgers+=("$here/ledgers/$attack")
    if [[ -e $OUT/$run/DONE ]]; then runs+=("$OUT/$run"); fi
    if [[ -e $OUT/$run/DONE && $run != */runs/clean ]]; then some=yes; fi
  done < <(awk -F '\t' -v scores="$2" '$6 == scores { print $1 "\t" $7 }' "$OUT/$1.tsv")
  if [[ ! $some ]]; then
    echo "nothing to measure yet"
    return
  fi
  mapfile -t runs < <(printf '%s\n' "${runs[@]}" | sort -u)
  mapfile -t ledgers < <(printf '%s\n' "${ledgers[@]}" | sort -u)
  antidote evaluate --backend local --runs "${runs[@]}" --ledger "${ledgers[@]}" --testsets "$here/test" --out "$OUT/$2"
}
frontier() { # PART METHOD: its table and image
  antidote frontier --plan "$OUT/$1.tsv" --at "$2" --out "$OUT/$1.md"
}
export -f place sets stack train measure frontier

mkdir -p "$OUT/logs" && rm -f "$OUT/logs/failed"
for part in finetune pretrain; do planned "$part" >"$OUT/$part.tsv"; done
todo=$(wanted | sort -s -k1,1r -k2,2n) # the long ones first
seeds=$(cut -s -d' ' -f2 <<<"$todo" | sort -u | tr '\n' ' ')
if [[ $todo ]]; then # ONLY=clean where nothing but pretraining is wanted
  SEEDS=$seeds ONLY="clean $(cut -d' ' -f3 <<<"$todo" | sort -u | tr '\n' ' ')" infra/jobs/attacks.sh "$OUT" || true
  if grep -q '^finetune' <<<"$todo"; then printf 'sets %s\n' $seeds; fi | JOBS=1 infra/jobs/side_by_side.sh "$OUT/logs" || true
  if grep -q '^pretrain' <<<"$todo"; then printf 'stack %s\n' $seeds; fi | infra/jobs/side_by_side.sh "$OUT/logs" || true
fi
{ grep -v @ <<<"$todo" || true; } | sed '/./s/^/train /' | infra/jobs/side_by_side.sh "$OUT/logs" || true
{ grep @ <<<"$todo" || true; } | sed 's/^/train /' | infra/jobs/side_by_side.sh "$OUT/logs" || true
for part in finetune pretrain; do
  tail -n +2 "$OUT/$part.tsv" | cut -f 6 | sort -u | sed "s/^/measure $part /"
done | infra/jobs/side_by_side.sh "$OUT/logs" || true
printf 'frontier %s\n' "finetune tacleaner" "pretrain roclip-after" | infra/jobs/side_by_side.sh "$OUT/logs"
