"""Recording a training: tensors, steps, machine, operators.

recording.json     what was recorded, and of what
steps.jsonl        a line a step; after an interruption a step may be there twice, the
                   later line counts
evaluations.jsonl  a line an epoch, of what surrounds the steps
epochs.jsonl       a line an epoch: its metrics
margins.npz        how each training image was seen
tensors/           a smdebug trial, or Parquet files
system.jsonl       samples of the machine
profile/           trace.json.gz, which opens in Perfetto; operators.json
ended_by.json      the finding that ended the training early, if one did
findings.json      what was found, once it was diagnosed
"""
