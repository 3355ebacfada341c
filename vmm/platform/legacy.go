package platform

// silent is a legacy device that is not there but must not read as ones.
//
// Linux probes the PIT when it calibrates its clocks: a channel 2 that reads
// 0xff forever costs some 100,000 port accesses, one that reads 0 none. The
// debug port is here so that writes to it, which Linux uses as a short delay,
// do not count as accesses to nothing.
type silent struct{}

// Read implements bus.Device.
func (silent) Read(_ uint64, data []byte) { clear(data) }

// Write implements bus.Device.
func (silent) Write(uint64, []byte) {}
