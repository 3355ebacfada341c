package doctor

import (
	"fmt"

	"github.com/spf13/cobra"
)

// CannotRunError is the error of the doctor command on a host where Linux guests
// do not run. The report has been printed by then.
type CannotRunError struct{ Reason string }

func (e *CannotRunError) Error() string {
	return fmt.Sprintf("Linux guests cannot run on this host: %s", e.Reason)
}

// Command returns "coalesce doctor". It prints the report and fails with a
// *CannotRunError if Linux guests cannot run here. device, the path of the KVM
// device, is read when it runs.
func Command(device *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what works on this host and how to mend the rest",
		Long: "Probe each requirement by using it, and print what was measured, what a\n" +
			"shortfall costs and the command that ends it. Exit status 1 if Linux guests\n" +
			"cannot run on this host.",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return report(cmd, Run(cmd.Context(), *device), asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// report prints r and turns its verdict into the command's result.
func report(cmd *cobra.Command, r Report, asJSON bool) error {
	write := r.WriteText
	if asJSON {
		write = r.WriteJSON
	}
	if err := write(cmd.OutOrStdout()); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	if !r.Verdict.CanRunLinux {
		return &CannotRunError{Reason: r.Verdict.RunLinuxReason}
	}
	return nil
}
