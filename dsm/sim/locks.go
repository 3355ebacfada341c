//go:build !simulated

package sim

// locks: the engine's locks are simulated, and others run while one has them.
const locks = false

func (w *World) takeLocks() {}
