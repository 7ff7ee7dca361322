package embedded

// StartWith is startWith, for tests in another package.
var StartWith = startWith

// Clients returns the number of client connections.
func (s *Server) Clients() int { return s.s.NumClients() }
