// Kubernetes as one program.
//
// The first argument, or the name by which the program is called, says which
// component runs: etcd, kube-apiserver, kube-controller-manager,
// kube-scheduler, kubelet, kube-proxy or kubectl. Each is the unchanged
// upstream command; they are linked together because they share almost all of
// their code, so one program builds several times faster than seven and takes
// a fraction of the disk.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	_ "time/tzdata" // time zones of CronJobs

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubectl's login plugins
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // version metric
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// components maps each name to what runs it; os.Args then looks as it would in
// the component's own program.
var components = map[string]func(){
	"etcd":                    func() { etcdmain.Main(os.Args) },
	"kube-apiserver":          server(apiserver.NewAPIServerCommand),
	"kube-controller-manager": server(controllers.NewControllerManagerCommand),
	"kube-scheduler":          server(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kube-proxy":              server(proxy.NewProxyCommand),
	// The kubelet sets up the signals itself and panics if its caller did too.
	"kubelet": server(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
	"kubectl": runKubectl,
}

func main() {
	name := filepath.Base(os.Args[0])
	if _, called := components[name]; !called && len(os.Args) > 1 {
		name = os.Args[1]
		os.Args = append([]string{name}, os.Args[2:]...)
	}
	run, known := components[name]
	if !known {
		fmt.Fprintf(os.Stderr, "usage: kubernetes COMPONENT ARGUMENTS...\ncomponents: %s\n", strings.Join(names(), ", "))
		os.Exit(2)
	}
	run()
}

// server runs a component until it is stopped. The command is made only when
// its component is the one that was asked for.
func server(newCommand func() *cobra.Command) func() {
	return func() { os.Exit(cli.Run(newCommand())) }
}

func runKubectl() {
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err) // prints the error as kubectl does, and exits
	}
}

func names() []string {
	all := make([]string, 0, len(components))
	for name := range components {
		all = append(all, name)
	}
	sort.Strings(all)
	return all
}
