"""bv.tl and bv.pp: functions of a model and data, which call the analysis and hand back records, frames or arrays."""
