// Volumes on the disk of a node: a provisioner of local PersistentVolumes.
//
// A volume is a directory under --directory/NODE, bound to the node that the
// scheduler chose. It is a `local` volume and not a hostPath, so that the
// kubelet sets the pod's fsGroup on it. All nodes of a development cluster
// share one file system, so one provisioner serves all of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// name is what the StorageClass calls this provisioner.
const name = "sluice.dev/local"

type provisioner struct {
	directory string // absolute; each node has a folder in it
}

func (p provisioner) Provision(_ context.Context, options controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	for _, mode := range options.PVC.Spec.AccessModes {
		if mode != corev1.ReadWriteOnce && mode != corev1.ReadWriteOncePod {
			return nil, controller.ProvisioningFinished, fmt.Errorf("access mode %s: a local volume is on one node", mode)
		}
	}
	node := options.SelectedNodeName
	if node == "" {
		return nil, controller.ProvisioningFinished, errors.New("no node selected: the StorageClass must say WaitForFirstConsumer")
	}
	path := filepath.Join(p.directory, node, options.PVName)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	// Pods without an fsGroup run as users that nobody knows here.
	if err := os.Chmod(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	filesystem := corev1.PersistentVolumeFilesystem
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   options.PVC.Spec.AccessModes,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: options.PVC.Spec.Resources.Requests[corev1.ResourceStorage]},
			MountOptions:                  options.StorageClass.MountOptions,
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			VolumeMode:                    &filesystem,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
				}},
			}}}},
		},
	}
	return volume, controller.ProvisioningFinished, nil
}

func (p provisioner) Delete(_ context.Context, volume *corev1.PersistentVolume) error {
	relative, err := filepath.Rel(p.directory, volume.Spec.Local.Path)
	if err != nil || !filepath.IsLocal(relative) || relative == "." {
		return &controller.IgnoredError{Reason: volume.Spec.Local.Path + " is not in " + p.directory}
	}
	return os.RemoveAll(filepath.Join(p.directory, relative))
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	directory := flag.String("directory", "", "where the volumes are made, an absolute path")
	flag.Parse()
	if err := run(*kubeconfig, *directory); err != nil {
		fmt.Fprintln(os.Stderr, "provisioner:", err)
		os.Exit(1)
	}
}

func run(kubeconfig, directory string) error {
	if !filepath.IsAbs(directory) {
		return fmt.Errorf("--directory must be an absolute path, not %q", directory)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx = klog.NewContext(ctx, klog.Background())
	controller.NewProvisionController(ctx, client, name, provisioner{directory},
		controller.LeaderElection(false),
		controller.ResyncPeriod(time.Minute),
		controller.Threadiness(2),
	).Run(ctx)
	return nil
}
