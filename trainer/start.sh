#!/bin/sh
# What the trainer's container runs: the run that the environment describes, resumed where it stopped.
set -eu
reward=$(cat /run/choice/reward)
case $reward in
    mixed | human) default=trainer/configs/tiny-$reward.toml ;;
    machine) default=trainer/configs/tiny.toml ;;
    *) echo "start.sh: unknown choice of reward: $reward" >&2; exit 2 ;;
esac
set -- --config "${TRAINER_CONFIG:-$default}" --server "$REWARD_SERVER" \
    --name "${RUN_NAME:-$reward}" --set run.folder=/var/lib/runs --resume
if [ "$reward" != mixed ] && [ -z "${TRAINER_CONFIG:-}" ]; then
    # These two end by the clock where somebody waits for them; here people may be away for days.
    set -- "$@" --set run.time_budget_minutes=1e6
fi
if [ -n "${MODEL:-}" ]; then
    set -- "$@" --model "$MODEL"
fi
if [ -n "${STUDENT_LORA:-}" ]; then
    set -- "$@" --set "model.student_lora=$STUDENT_LORA"
    [ -z "${STUDENT_ALPHA:-}" ] || set -- "$@" --set "model.student_alpha=$STUDENT_ALPHA"
fi
if [ "${GPU_COUNT:-1}" = 1 ]; then
    launch=python
else
    # Given as long to save the run as the container itself.
    launch="torchrun --standalone --nproc-per-node gpu --shutdown-timeout 1800"
fi
# Words, not one word: TRAINER_ARGS="--set generator.lr=1e-4 --set groups.size=6".
# shellcheck disable=SC2086
exec $launch -m trainer train "$@" ${TRAINER_ARGS:-}
