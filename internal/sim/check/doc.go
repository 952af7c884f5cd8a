// Package check decides whether what clients saw can have happened: histories of
// registers, counters, sets, lists and accounts go in, the first contradiction
// comes out.
//
//	clients' operations ──▶ history ──▶ Registers  linearizable (porcupine)
//	 (call, return,                 ├─▶ Counter    each increment once, in order
//	  outcome, answer)              ├─▶ Set        nothing lost, nothing invented
//	                                ├─▶ Lists      no cycle of dependencies
//	                                └─▶ Bank       the sum never changes
//
// Invariants:
//
//	K1. An operation whose outcome nobody knows may have happened at any time
//	    from its call on, or never: it is never held against the system.
//	K2. An operation that was refused has not happened.
//	K3. Equal histories give equal words: nothing depends on the order of maps.
package check
