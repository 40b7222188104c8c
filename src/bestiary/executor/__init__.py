"""Where organisms are trained: in this process, or by Ray's workers over the same store."""
