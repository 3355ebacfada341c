package acpi

import "encoding/binary"

// slit is the matrix of distances between domains, row by row (ACPI 6.5,
// 5.2.17).
func (m *Machine) slit() []byte {
	const revision = 1
	n := m.domains().count
	body := binary.LittleEndian.AppendUint64(nil, uint64(n))
	for i := range n {
		for j := range n {
			switch {
			case m.Distances != nil:
				body = append(body, m.Distances[i][j])
			case i == j:
				body = append(body, localDistance)
			default:
				body = append(body, remoteDistance)
			}
		}
	}
	return table("SLIT", revision, body)
}
