"""Debugging of a training: record it, profile it, apply rules to it, conclude.

rules/        rules over recorded evidence
profiling/    where the time goes, what the machine does
recording/    what is written while it trains
diagnosis.py  what came of the rules
smdebug_format.py, smdebug_source.py: SageMaker Debugger's trial format
"""
