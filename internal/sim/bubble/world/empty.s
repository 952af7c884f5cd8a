// The compiler allows functions without a body (replay_on.go) beside a file like this.
