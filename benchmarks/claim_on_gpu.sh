#!/usr/bin/env bash
# Does pretraining help on real radiographs, with one GPU? Stage 1 on the chests and knees of configs/table.py:real_small
# at 128 px, for as many steps as fit some minutes, then 36 fine-tuning runs from few labels.
#
#   benchmarks/claim_on_gpu.sh ARCHIVES OUT              8 minutes of stage 1, then the cells
#   MINUTES=20 benchmarks/claim_on_gpu.sh ARCHIVES OUT   20 minutes of stage 1
#   SMOKE=1 benchmarks/claim_on_gpu.sh ARCHIVES OUT      a few steps of small views, to try it on a CPU
#
# ARCHIVES has kermany_pneumonia and knee_oa (images of 128 px are enough). OUT gets the runs, the table and the log. The
# same command resumes; cells that are finished are skipped. Environment, as Python tuples: TASKS (of germ and knee),
# INITS, FRACTIONS, SEEDS; SMOKE sets the last two itself.
set -euo pipefail
archives=${1:?usage: claim_on_gpu.sh ARCHIVES OUT} out=${2:?usage: claim_on_gpu.sh ARCHIVES OUT}
minutes=${MINUTES:-8}
tasks=${TASKS:-"('germ','knee')"} inits=${INITS:-"('scratch','md_moco')"}
fractions=${FRACTIONS:-"(0.01,0.05,0.1)"} seeds=${SEEDS:-"(1,2,3)"}
view=128 batch=256 trial=60
[ -n "${SMOKE:-}" ] && view=32 batch=64 trial=8 fractions="(0.05,)" seeds="(1,)"
run="$minutes-minutes${SMOKE:+-smoke}"  # other settings are other runs
mkdir -p "$out"

table() {  # table STEPS WORKDIR FLAG...
  local steps=$1 workdir=$2
  shift 2
  python -m mtpret_jax.main --config=configs/table.py:real_small --config.workdir="$workdir" \
    --config.data.archives="$archives" --config.data.dir="$out/data" --config.tasks="$tasks" --config.inits="$inits" \
    --config.fractions="$fractions" --config.seeds="$seeds" \
    --config.stages.pretrain.data.datasets="('kermany_pneumonia','knee_oa')" \
    --config.stages.pretrain.batch=$batch --config.stages.pretrain.steps="$steps" --config.stages.pretrain.log_every=4 \
    --config.stages.pretrain.augment.size=$view --config.stages.pretrain.data.size=$view \
    "${sizes[@]}" "$@"
}

sizes=()
for task in germ knee; do
  sizes+=("--config.stages.finetune.$task.tasks.$task.size=$((view * 115 / 100))"
          "--config.stages.finetune.$task.tasks.$task.augment.size=$view")
  if [ -n "${SMOKE:-}" ]; then
    sizes+=("--config.stages.finetune.$task.tasks.$task.min_steps=4" "--config.stages.finetune.$task.tasks.$task.max_steps=4"
            "--config.stages.finetune.$task.validations=1")
  fi
done

if [ ! -s "$out/steps-$run" ]; then
  # The number of steps sets the learning-rate schedule, so a trial run measures the speed first.
  python -m mtpret_jax.main --config=configs/pretrain.py:real --config.workdir="$out/trial-$run" \
    --config.data.archives="$archives" --config.data.dir="$out/data" \
    --config.data.datasets="('kermany_pneumonia','knee_oa')" --config.data.size=$view --config.augment.size=$view \
    --config.batch=$batch --config.steps=$trial --config.log_every=4 --config.probe.every=0
  python - "$out/trial-$run/metrics.jsonl" $batch "$minutes" "${SMOKE:-}" > "$out/steps-$run" <<'PYTHON'
import json, statistics, sys
path, batch, minutes, smoke = sys.argv[1:]
with open(path, encoding='utf-8') as file:
  speeds = [json.loads(line)['images_per_second'] for line in file]
print(8 if smoke else max(round(60 * float(minutes) * statistics.median(speeds) / int(batch)), 1))
PYTHON
fi
steps=$(cat "$out/steps-$run")
echo "stage 1: $steps steps of $batch images"
table "$steps" "$out/table-$run" 2>&1 | tee -a "$out/claim-$run.log"
