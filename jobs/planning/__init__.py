"""The estimate before launch: parameters, memory by part, time. Free of torch, so that a web process can show it beside the form.

`shape` reads what a model is made of, `batches` how large its batches become, `tensors` what a step keeps (the one place of formulas),
`memory` adds it up by part and phase, `speed` counts the arithmetic, `calibration` knows the device, `estimate` puts all together.
`probe` alone runs torch, as a child process.
"""
