package check

import "fmt"

// BankRead is what all accounts held at one time.
type BankRead struct {
	Op
	Accounts []int64
}

// Bank checks that the accounts of every read add up to the same sum: transfers
// move money, and are seen whole or not at all.
func Bank(reads []*BankRead, sum int64) error {
	for _, r := range reads {
		if r.Outcome != OK {
			continue
		}
		got := int64(0)
		for _, a := range r.Accounts {
			got += a
		}
		if got != sum {
			return fmt.Errorf("the accounts hold %v, together %d of %d, for client %d at [%s, %s]", r.Accounts, got, sum, r.Client, r.Call, r.Return)
		}
	}
	return nil
}
