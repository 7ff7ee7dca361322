//go:build !linux

package results

// place returns "": the system does not say.
func (f *Folder) place() string { return "" }
