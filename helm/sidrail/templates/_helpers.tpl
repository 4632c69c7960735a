{{- /* Names, labels, and what is read out of the daemons' configurations. "component" is proxy or broker; templates that need
one take (dict "root" $ "component" "proxy"). */ -}}

{{- define "sidrail.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "sidrail.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "sidrail.component" -}}
{{- printf "%s-%s" (include "sidrail.fullname" .root) .component -}}
{{- end -}}

{{- define "sidrail.selector" -}}
app.kubernetes.io/name: {{ include "sidrail.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "sidrail.labels" -}}
{{ include "sidrail.selector" . }}
app.kubernetes.io/part-of: sidrail
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "sidrail.image" -}}
{{- with (index .root.Values .component).image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.root.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sidrail.serviceAccount" -}}
{{- with .Values.proxy.serviceAccount -}}
{{- if .create -}}
{{- default (include "sidrail.component" (dict "root" $ "component" "proxy")) .name -}}
{{- else -}}
{{- default "default" .name -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sidrail.affinityKeysSecret" -}}
{{- default (printf "%s-keys" (include "sidrail.component" (dict "root" . "component" "proxy"))) .Values.proxy.affinityKeys.existingSecret -}}
{{- end -}}

{{- /* Port of "0.0.0.0:8080" or "[::]:8080"; nothing of a unix socket. */ -}}
{{- define "sidrail.port" -}}
{{- if not (hasPrefix "unix:" (toString .)) -}}
{{- regexFind "[0-9]+$" (toString .) -}}
{{- end -}}
{{- end -}}

{{- /* {"ports": […]} of a component's TCP listeners, in their order. */ -}}
{{- define "sidrail.listenerPorts" -}}
{{- $ports := list -}}
{{- range (index .root.Values .component).config.listeners -}}
{{- $port := include "sidrail.port" (kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "address") .) -}}
{{- if $port -}}
{{- $ports = append $ports (int $port) -}}
{{- end -}}
{{- end -}}
{{- $count := len (index .root.Values .component).service.ports -}}
{{- if or (not $ports) (ne (len $ports) $count) -}}
{{- fail (printf "%s.service.ports has %d entries, and config.listeners %d with a TCP port: one is needed for each, and one at least" .component $count (len $ports)) -}}
{{- end -}}
{{- dict "ports" $ports | toJson -}}
{{- end -}}

{{- /* Where `helm test` asks: the given URL, else the Service's port of the first listener that takes a stranger's plain
connection; nothing when there is none. */ -}}
{{- define "sidrail.probeUrl" -}}
{{- $values := index .root.Values .component -}}
{{- $_ := include "sidrail.listenerPorts" . -}}
{{- $found := dict "url" $values.helmTest.url -}}
{{- $place := 0 -}}
{{- range $values.config.listeners -}}
{{- $listener := kindIs "map" . | ternary . (dict "address" .) -}}
{{- if include "sidrail.port" $listener.address -}}
{{- if not (or $found.url $listener.tls $listener.redirect_https $listener.proxy_protocol $listener.users) -}}
{{- $port := (index $values.service.ports $place).port | int -}}
{{- $_ := set $found "url" (printf "%s://%s.%s:%d" (eq $.component "proxy" | ternary "http" "redis") (include "sidrail.component" $) $.root.Release.Namespace $port) -}}
{{- end -}}
{{- $place = add1 $place -}}
{{- end -}}
{{- end -}}
{{- $found.url -}}
{{- end -}}

{{- define "sidrail.adminPort" -}}
{{- $address := dig "admin" "address" "" (index .root.Values .component).config -}}
{{- $port := include "sidrail.port" $address -}}
{{- if or (not $port) (hasPrefix "127." $address) (hasPrefix "localhost:" $address) (hasPrefix "[::1]" $address) -}}
{{- fail (printf "%s.config.admin.address is %q: the kubelet's probes come to the pod's address, so it must be 0.0.0.0:PORT or [::]:PORT" .component $address) -}}
{{- end -}}
{{- $port -}}
{{- end -}}

{{- /* Seconds, rounded up, of a duration as the daemons read it: 0, 500ms, 240s, 4m, 1h. */ -}}
{{- define "sidrail.seconds" -}}
{{- $text := toString . -}}
{{- $number := regexFind "^[0-9]+" $text | int64 -}}
{{- if hasSuffix "ms" $text -}}{{ div (add $number 999) 1000 }}
{{- else if hasSuffix "m" $text -}}{{ mul $number 60 }}
{{- else if hasSuffix "h" $text -}}{{ mul $number 3600 }}
{{- else -}}{{ $number }}
{{- end -}}
{{- end -}}

{{- /* The daemon ends by itself within shutdown.deadline; 15 s more are for the kubelet. */ -}}
{{- define "sidrail.gracePeriod" -}}
{{- $values := index .root.Values .component -}}
{{- $deadline := include "sidrail.seconds" (dig "shutdown" "deadline" (eq .component "proxy" | ternary "240s" "10s") $values.config) | int64 -}}
{{- $given := $values.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{- add $deadline 15 -}}
{{- else if lt (int64 $given) (add $deadline 5) -}}
{{- fail (printf "%s.terminationGracePeriodSeconds is %d: the kubelet would end the pod before its shutdown.deadline of %d s and 5 s more" .component (int64 $given) $deadline) -}}
{{- else -}}
{{- int64 $given -}}
{{- end -}}
{{- end -}}

{{- /* {"namespaces": […]} whose EndpointSlices the proxy watches. */ -}}
{{- define "sidrail.watchedNamespaces" -}}
{{- $found := list -}}
{{- range .Values.proxy.config.upstreams -}}
{{- with dig "discovery" "kubernetes" dict . -}}
{{- $found = append $found (default $.Release.Namespace .namespace) -}}
{{- end -}}
{{- end -}}
{{- dict "namespaces" ($found | uniq | sortAlpha) | toJson -}}
{{- end -}}

{{- /* The values of those options that need new pods. */ -}}
{{- define "sidrail.restartOptions" -}}
{{- $config := (index .root.Values .component).config -}}
{{- $found := dict -}}
{{- range $path := index (.root.Files.Get "files/restart-options.json" | fromJson) .component -}}
{{- $value := $config -}}
{{- range splitList "." $path -}}
{{- $value = kindIs "map" $value | ternary (get (kindIs "map" $value | ternary $value dict) .) "" -}}
{{- end -}}
{{- $_ := set $found $path $value -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{- /* The file that the daemon reads. */ -}}
{{- define "sidrail.config" -}}
{{- $config := deepCopy (index .root.Values .component).config -}}
{{- if and (eq .component "proxy") (not $config.affinity_keys) -}}
{{- $_ := set $config "affinity_keys" "/etc/sidrail-keys/affinity.keys" -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}
