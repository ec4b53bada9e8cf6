{{/* What the pod, the Services and the NetworkPolicy read from the configuration, so that a port is written once. */}}

{{/* The ports of the listeners that others reach, as JSON: {"tcp": [8080], "udp": [8080]}. */}}
{{- define "switchboard.ports" -}}
{{- $tcp := list -}}
{{- $udp := list -}}
{{- range $name, $listener := .Values.config.listeners -}}
{{- $bind := required (printf "config.listeners.%s.bind: it is needed, such as 0.0.0.0:8080" $name) $listener.bind -}}
{{- if not (or (hasPrefix "127." $bind) (hasPrefix "localhost:" $bind) (hasPrefix "[::1]" $bind)) -}}
{{- $port := regexFind "[0-9]+$" $bind | int -}}
{{- if not (and (ge $port 1) (le $port 65535)) -}}
{{- fail (printf "config.listeners.%s.bind: %s has no port that a Service could name, such as 0.0.0.0:8080" $name $bind) -}}
{{- end -}}
{{- if or (eq $listener.protocol "uppercase") (eq (default "tcp" $listener.transport) "udp") -}}
{{- $udp = append $udp $port -}}
{{- else -}}
{{- if has $port (list 9464 50051) -}}
{{- fail (printf "config.listeners.%s.bind: 9464 and 50051 are the pod's own, for metrics and the control plane; %s needs another port" $name $bind) -}}
{{- end -}}
{{- $tcp = append $tcp $port -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- dict "tcp" ($tcp | uniq) "udp" ($udp | uniq) | toJson -}}
{{- end -}}

{{/* How long a pod may take to end, in seconds: the sessions' grace, and what it takes to tell everybody. */}}
{{- define "switchboard.grace" -}}
{{- if not (kindIs "invalid" .Values.terminationGracePeriodSeconds) -}}
{{- .Values.terminationGracePeriodSeconds | int -}}
{{- else -}}
{{- $grace := dig "shutdown" "grace" "30s" .Values.config -}}
{{- if not (regexMatch "^[0-9]+(s|m|h)$" $grace) -}}
{{- fail (printf "config.shutdown.grace: %s is not read here; write it as 90s, 5m or 1h, or set terminationGracePeriodSeconds" $grace) -}}
{{- end -}}
{{- $unit := get (dict "s" 1 "m" 60 "h" 3600) (regexFind "[smh]$" $grace) -}}
{{- add 10 (mul $unit (regexFind "^[0-9]+" $grace | int)) -}}
{{- end -}}
{{- end -}}

{{/* The port that telemetry goes to, whichever way the endpoint is given; nothing where it goes nowhere. */}}
{{- define "switchboard.otlpPort" -}}
{{- with default (dig "telemetry" "otlp_endpoint" "" .Values.config) .Values.otlp.endpoint -}}
{{- $authority := regexReplaceAll "^https?://([^/]*).*$" . "${1}" -}}
{{- regexFind ":[0-9]+$" $authority | trimPrefix ":" | default (ternary "443" "80" (hasPrefix "https:" .)) -}}
{{- end -}}
{{- end -}}
