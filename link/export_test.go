package link

// FD lets tests disturb a connection's socket.
func FD(c *Conn) int { return c.fd }
