package acpi

// fadtBody is the FADT after its header (ACPI 6.5, 5.2.9). A hardware-reduced
// machine leaves everything about fixed hardware zero.
type fadtBody struct {
	FirmwareCtrl     uint32 // no FACS, as 5.2.9 allows hardware-reduced machines
	DSDT             uint32 // ignored, since XDSDT is given
	_                uint8
	PMProfile        uint8
	SCIInterrupt     uint16
	SMICommand       uint32
	ACPIEnable       uint8
	ACPIDisable      uint8
	S4BIOSRequest    uint8
	PStateControl    uint8
	PMBlocks         [8]uint32 // PM1a, PM1b event; PM1a, PM1b control; PM2; timer; GPE0, GPE1
	PMLengths        [7]uint8
	CSTControl       uint8
	C2Latency        uint16
	C3Latency        uint16
	FlushSize        uint16
	FlushStride      uint16
	DutyOffset       uint8
	DutyWidth        uint8
	DayAlarm         uint8
	MonthAlarm       uint8
	Century          uint8
	IAPCBootArch     uint16
	_                uint8
	Flags            uint32
	ResetRegister    genericAddress
	ResetValue       uint8
	ARMBootArch      uint16
	MinorVersion     uint8
	XFirmwareCtrl    uint64
	XDSDT            uint64
	XPMBlocks        [8]genericAddress
	SleepControl     genericAddress
	SleepStatus      genericAddress
	HypervisorVendor [8]byte
}

// The FADT's version: Linux takes "online capable" in the MADT for meant from
// 6.3 on.
const (
	fadtRevision      = 6
	fadtMinorRevision = 5
)

// Fixed feature flags (ACPI 6.5, 5.2.9, table 5.10).
const (
	fadtWBINVD        = 1 << 0  // the instruction works and keeps caches coherent
	fadtProcC1        = 1 << 2  // HLT is there on all processors
	fadtPowerButton   = 1 << 4  // not fixed hardware: a control method device or none
	fadtSleepButton   = 1 << 5  // likewise
	fadtFixRTC        = 1 << 6  // no wake status of the RTC in fixed hardware
	fadtResetRegister = 1 << 10 // ResetRegister is supported
	fadtHeadless      = 1 << 12 // no monitor, keyboard or mouse
	fadtAPICPhysical  = 1 << 19 // all local APICs use physical destination mode
	fadtHWReduced     = 1 << 20
)

// IA-PC boot architecture flags (ACPI 6.5, 5.2.9.3). That of the 8042 stays
// clear, so Linux does not look for a keyboard; "CMOS RTC Not Present" stays
// clear because there is one.
const bootNoVGA = 1 << 2

func (m *Machine) fadt(dsdt uint64) []byte {
	const (
		enterpriseServer = 4 // preferred PM profile, 5.2.9.1
		noCState         = 0xFFFF
	)
	return table("FACP", fadtRevision, pack(nil, &fadtBody{
		PMProfile:    enterpriseServer,
		C2Latency:    noCState,
		C3Latency:    noCState,
		IAPCBootArch: bootNoVGA,
		Flags: fadtWBINVD | fadtProcC1 | fadtPowerButton | fadtSleepButton | fadtFixRTC |
			fadtResetRegister | fadtHeadless | fadtAPICPhysical | fadtHWReduced,
		ResetRegister:    bytePort(m.Sleep.Reset),
		ResetValue:       m.Sleep.ResetValue,
		MinorVersion:     fadtMinorRevision,
		XDSDT:            dsdt,
		SleepControl:     bytePort(m.Sleep.Control),
		SleepStatus:      bytePort(m.Sleep.Status),
		HypervisorVendor: [8]byte([]byte("COALESCE")),
	}))
}
