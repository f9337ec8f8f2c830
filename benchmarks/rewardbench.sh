#!/bin/sh
# RewardBench's own program on a model of ours, in an environment of its own: it pins transformers 4.51, which this package can't run on.
#
#     benchmarks/rewardbench.sh MODEL FOLDER [1|2]
#
# MODEL has to fit the released layout (docs/checkpoints.md). Needs a GPU, the network, and modeling_custom.py of the released model,
# which its own class comes from. Writes FOLDER/exported, FOLDER/env and FOLDER/results. `armorm bench MODEL --suite rewardbench`
# computes the same figures without all that.
set -eu
model=$1 folder=$2 version=${3:-1}
mkdir -p "$folder"
[ -d "$folder/exported" ] || armorm export "$model" "$folder/exported" --layout released
if [ ! -x "$folder/env/bin/rewardbench" ]; then
  python3 -m venv "$folder/env"
  "$folder/env/bin/pip" install rewardbench==0.1.4
fi
exported=$(cd "$folder/exported" && pwd)
mkdir -p "$folder/results"
folder=$(cd "$folder" && pwd)
cd "$folder/results"
if [ "$version" = 2 ]; then
  script=$("$folder/env/bin/python" -c 'import scripts, os; print(os.path.join(list(scripts.__path__)[0], "run_v2.py"))')
  "$folder/env/bin/python" "$script" --model "$exported" --trust_remote_code --torch_dtype bfloat16 --max_length 4096 --do_not_save
else
  "$folder/env/bin/rewardbench" --model "$exported" --trust_remote_code --torch_dtype bfloat16 --max_length 4096 --output_dir .
fi
