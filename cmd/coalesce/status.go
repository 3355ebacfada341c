package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"coalesce/vmm"
	"coalesce/vmm/top"
)

func newStatus() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [NAME] [flags]",
		Short: "Say what guests and lenders run here",
		Long: `Status says of each guest and each lender that this user runs on this host, or
of the one that is named, who takes part in it with what. A name is what --name
of run and lend gives, else run-PID and lend-PID.`,
		Example:           "  coalesce status\n  coalesce status --json run-1234",
		Args:              atMostOne,
		ValidArgsFunction: completeInstance,
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := instances(args)
			if err != nil {
				return err
			}
			var found []*vmm.Status
			for _, name := range names {
				c, err := newClient(name)
				if err != nil {
					return err
				}
				var s vmm.Status
				err = get(cmd.Context(), c, "/v1/status", &s)
				c.Close()
				switch {
				case err == nil:
					found = append(found, &s)
				case notThere(err) && len(args) == 0: // it has ended meanwhile
				default:
					return err
				}
			}
			return writeStatus(found, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

func writeStatus(found []*vmm.Status, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(found); err != nil {
			return fmt.Errorf("print the status: %w", err)
		}
		return nil
	}
	var errs []error
	for _, s := range found {
		errs = append(errs, top.WriteStatus(os.Stdout, s))
	}
	return errors.Join(errs...)
}
