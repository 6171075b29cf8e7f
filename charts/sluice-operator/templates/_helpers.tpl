{{/* The name of everything that the chart makes. */}}
{{- define "sluice.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end }}

{{/* What selects the operator's pods. The brokers' network policies select them by app.kubernetes.io/name. */}}
{{- define "sluice.selector" -}}
app.kubernetes.io/name: sluice-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The labels of everything that the chart makes. */}}
{{- define "sluice.labels" -}}
{{ include "sluice.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: sluice
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The operator's image. */}}
{{- define "sluice.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The operator's ServiceAccount. */}}
{{- define "sluice.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "sluice.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{/* What the operator does in a namespace that it works in: exactly the verbs that it uses. No Secrets. */}}
{{- define "sluice.rules" -}}
- apiGroups: [sluice.dev]
  resources: [messagebrokers]
  verbs: [get, list, watch, patch]
- apiGroups: [sluice.dev]
  resources: [messagetopics]
  verbs: [get, list, watch, patch, create]
# Where partitions live is replaced by compare-and-swap: update.
- apiGroups: [sluice.dev]
  resources: [messagebrokers/status, messagetopics/status]
  verbs: [get, patch, update]
# Owner references that block deletion need this where the API server asks for it.
- apiGroups: [sluice.dev]
  resources: [messagebrokers/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# Rolling and recovering brokers deletes pods; who leaves is labelled.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch, delete]
# Volumes grow, and go when their broker has left.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, patch, delete]
# Another autoscaler of the same brokers is told of.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
