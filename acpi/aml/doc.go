// Package aml encodes ACPI Machine Language, the byte code of a definition
// block (DSDT), as laid down in ACPI 6.5, chapter 20.
//
// A definition block is a tree of terms. Every constructor returns a node of
// that tree; [Encode] walks it and returns the bytes. The Go types follow the
// grammar of section 20.2, so that what the grammar forbids does not compile:
//
//	Term    anything a TermList may hold: definitions and statements
//	Value   a Term that yields a value (TermArg): data, names, operators, calls
//	Target  a Value that can be stored to or locked (SuperName)
//	Data    a Value known when the table is built (DataRefObject)
//
// A node never fails when it is made. What cannot be encoded (a name of five
// letters, a package of 256 MiB) is reported by Encode.
//
// Only the part of the language that the machine's tables use is here.
package aml
