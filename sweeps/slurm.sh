
run=${runs[SLURM_ARRAY_TASK_ID]}
mkdir -p "$logs"
exec >> "$logs/$run.log" 2>&1
node=${SLURMD_NODENAME:-$HOSTNAME}
job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID

# The training ends after its batch, and keeps its last whole epoch.
end() { signalled=1; kill -TERM "$training" 2> /dev/null; }
time_is_up= ended= signalled=
trap 'time_is_up=1; end' USR1   # from --signal, some time before the time limit
trap 'ended=1; end' TERM        # preempted, requeued or cancelled

# Lines of the history of this run.
epochs() { cat "$ISIC_ROOT/model_data/$run/$run.csv" 2> /dev/null | wc -l; }
before=$(epochs)

# One that a signal killed, as when memory runs out, is started again.
for ((start = 0; start <= retries; start++)); do
    echo "=== started $(date +%FT%T) on $node, Slurm job $job"
    eval "exec ${commands[SLURM_ARRAY_TASK_ID]}" &
    training=$!
    wait "$training"
    code=$?
    while [[ $signalled ]]; do  # a signal to this script ended the wait
        signalled=
        wait "$training"
        code=$?
    done
    echo "=== ended with exit code $code"
    if ((code <= 128 || code == 130 || code == 143)) || [[ $time_is_up$ended ]]; then
        break
    fi
done

if [[ $time_is_up ]] && ((code != 0)); then
    if [[ $(epochs) == "$before" ]]; then  # it would never get on
        echo "error: no epoch was done before the time limit. Give more: --sbatch time=..."
        exit 1
    fi
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
