"""MTPret in JAX: multitask pretraining for X-ray image analytics (Liao et al., IEEE TAI 2024).

A config names datasets, an objective and a trunk. `data` turns prepared records into (task, batch); an objective in
`objectives` says what a batch costs and what it changes; `step` compiles one donated, sharded step per task; `train`
is the one loop that draws, steps, saves and logs; `probe` and `report` show what stage 1 learned, `watch`, `evaluate`
and `scores` what stages 2 and 3 did.
"""
