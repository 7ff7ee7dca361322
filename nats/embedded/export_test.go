package embedded

// StartWith is startWith for the tests of another package.
var StartWith = startWith

// Clients returns the number of connections of clients.
func (s *Server) Clients() int { return s.s.NumClients() }
