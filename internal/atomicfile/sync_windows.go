package atomicfile

// SyncDir does nothing: Windows has no flush for directories; NTFS journals names.
func SyncDir(string) error { return nil }
