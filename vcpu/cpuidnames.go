package vcpu

// Names of CPUID feature bits, as /proc/cpuinfo spells them where it does.

// names1ECX: CPUID 1 ECX.
var names1ECX = [32]string{
	0: "pni", 1: "pclmulqdq", 2: "dtes64", 3: "monitor", 4: "ds_cpl", 5: "vmx", 6: "smx", 7: "est", 8: "tm2",
	9: "ssse3", 10: "cid", 11: "sdbg", 12: "fma", 13: "cx16", 14: "xtpr", 15: "pdcm", 17: "pcid", 18: "dca",
	19: "sse4_1", 20: "sse4_2", 21: "x2apic", 22: "movbe", 23: "popcnt", 24: "tsc_deadline_timer", 25: "aes",
	26: "xsave", 27: "osxsave", 28: "avx", 29: "f16c", 30: "rdrand", 31: "hypervisor",
}

// names1EDX: CPUID 1 EDX.
var names1EDX = [32]string{
	0: "fpu", 1: "vme", 2: "de", 3: "pse", 4: "tsc", 5: "msr", 6: "pae", 7: "mce", 8: "cx8", 9: "apic",
	11: "sep", 12: "mtrr", 13: "pge", 14: "mca", 15: "cmov", 16: "pat", 17: "pse36", 18: "pn", 19: "clflush",
	21: "dts", 22: "acpi", 23: "mmx", 24: "fxsr", 25: "sse", 26: "sse2", 27: "ss", 28: "ht", 29: "tm",
	30: "ia64", 31: "pbe",
}

// names6EAX: CPUID 6 EAX.
var names6EAX = [32]string{
	2: "arat",
}

// names7EBX: CPUID 7.0 EBX.
var names7EBX = [32]string{
	0: "fsgsbase", 1: "tsc_adjust", 2: "sgx", 3: "bmi1", 4: "hle", 5: "avx2", 6: "fdp_excptn_only", 7: "smep",
	8: "bmi2", 9: "erms", 10: "invpcid", 11: "rtm", 12: "cqm", 13: "zero_fcs_fds", 14: "mpx", 15: "rdt_a",
	16: "avx512f", 17: "avx512dq", 18: "rdseed", 19: "adx", 20: "smap", 21: "avx512ifma", 23: "clflushopt",
	24: "clwb", 25: "intel_pt", 26: "avx512pf", 27: "avx512er", 28: "avx512cd", 29: "sha_ni", 30: "avx512bw",
	31: "avx512vl",
}

// names7ECX: CPUID 7.0 ECX.
var names7ECX = [32]string{
	0: "prefetchwt1", 1: "avx512vbmi", 2: "umip", 3: "pku", 4: "ospke", 5: "waitpkg", 6: "avx512_vbmi2",
	7: "user_shstk", 8: "gfni", 9: "vaes", 10: "vpclmulqdq", 11: "avx512_vnni", 12: "avx512_bitalg", 13: "tme",
	14: "avx512_vpopcntdq", 16: "la57", 22: "rdpid", 23: "kl", 24: "bus_lock_detect", 25: "cldemote",
	27: "movdiri", 28: "movdir64b", 29: "enqcmd", 30: "sgx_lc", 31: "pks",
}

// names7EDX: CPUID 7.0 EDX.
var names7EDX = [32]string{
	2: "avx512_4vnniw", 3: "avx512_4fmaps", 4: "fsrm", 5: "uintr", 8: "avx512_vp2intersect", 9: "srbds_ctrl",
	10: "md_clear", 11: "rtm_always_abort", 13: "tsx_force_abort", 14: "serialize", 15: "hybrid_cpu",
	16: "tsxldtrk", 18: "pconfig", 19: "arch_lbr", 20: "ibt", 22: "amx_bf16", 23: "avx512_fp16", 24: "amx_tile",
	25: "amx_int8", 26: "spec_ctrl", 27: "intel_stibp", 28: "flush_l1d", 29: "arch_capabilities",
	30: "core_capabilities", 31: "spec_ctrl_ssbd",
}

// names71EAX: CPUID 7.1 EAX.
var names71EAX = [32]string{
	0: "sha512", 1: "sm3", 2: "sm4", 3: "rao_int", 4: "avx_vnni", 5: "avx512_bf16", 7: "cmpccxadd",
	8: "arch_perfmon_ext", 10: "fzrm", 11: "fsrs", 12: "fsrc", 17: "fred", 18: "lkgs", 19: "wrmsrns",
	21: "amx_fp16", 22: "hreset", 23: "avx_ifma", 26: "lam",
}

// namesXCR0: CPUID 0xD.0 EAX, register sets of XSAVE.
var namesXCR0 = [32]string{
	0: "x87 state", 1: "sse state", 2: "avx state", 5: "avx512 opmask state", 6: "avx512 zmm_hi256 state",
	7: "avx512 hi16_zmm state", 9: "pkru state", 17: "amx tilecfg state", 18: "amx tiledata state",
}

// namesD1EAX: CPUID 0xD.1 EAX.
var namesD1EAX = [32]string{
	0: "xsaveopt", 1: "xsavec", 2: "xgetbv1", 3: "xsaves", 4: "xfd",
}

// names81ECX: CPUID 0x80000001 ECX.
var names81ECX = [32]string{
	0: "lahf_lm", 1: "cmp_legacy", 2: "svm", 3: "extapic", 4: "cr8_legacy", 5: "abm", 6: "sse4a",
	7: "misalignsse", 8: "3dnowprefetch", 9: "osvw", 10: "ibs", 11: "xop", 12: "skinit", 13: "wdt", 15: "lwp",
	16: "fma4", 17: "tce", 19: "nodeid_msr", 21: "tbm", 22: "topoext", 23: "perfctr_core", 24: "perfctr_nb",
	26: "bpext", 27: "ptsc", 28: "perfctr_llc", 29: "mwaitx",
}

// names81EDX: CPUID 0x80000001 EDX.
var names81EDX = [32]string{
	0: "fpu", 1: "vme", 2: "de", 3: "pse", 4: "tsc", 5: "msr", 6: "pae", 7: "mce", 8: "cx8", 9: "apic",
	11: "syscall", 12: "mtrr", 13: "pge", 14: "mca", 15: "cmov", 16: "pat", 17: "pse36", 19: "mp", 20: "nx",
	22: "mmxext", 23: "mmx", 24: "fxsr", 25: "fxsr_opt", 26: "pdpe1gb", 27: "rdtscp", 29: "lm", 30: "3dnowext",
	31: "3dnow",
}

// names87EDX: CPUID 0x80000007 EDX.
var names87EDX = [32]string{
	8: "constant_tsc",
}

// names88EBX: CPUID 0x80000008 EBX.
var names88EBX = [32]string{
	0: "clzero", 1: "irperf", 2: "xsaveerptr", 3: "invlpgb", 4: "rdpru", 6: "mba", 9: "wbnoinvd",
	12: "amd_ibpb", 14: "amd_ibrs", 15: "amd_stibp", 17: "amd_stibp_always_on", 18: "ibrs_preferred",
	19: "same_mode_ibrs", 21: "no_efer_lmsle", 23: "amd_ppin", 24: "amd_ssbd", 25: "virt_ssbd",
	26: "amd_ssb_no", 27: "cppc", 28: "amd_psfd", 29: "btc_no", 30: "ibpb_ret", 31: "brs",
}

// names821EAX: CPUID 0x80000021 EAX.
var names821EAX = [32]string{
	0: "no_nested_data_bp", 1: "fsgs_non_serializing", 2: "lfence_rdtsc", 3: "smm_page_cfg_lock",
	6: "null_sel_clr_base", 7: "upper_address_ignore", 8: "autoibrs", 9: "no_smm_ctl_msr", 27: "sbpb",
	28: "ibpb_brtype", 29: "srso_no",
}
