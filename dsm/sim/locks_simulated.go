//go:build simulated

package sim

import "coalesce/dsm"

const locks = true

func (w *World) takeLocks() { dsm.Scheduler = w }
