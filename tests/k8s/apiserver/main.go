// A Kubernetes API server that knows EndpointSlices only: k8s.io/apiserver over etcd, with EndpointSlice as a custom
// resource at its true address. Listing, paging, watching, bookmarks and expiry are therefore the real ones.
//
//	--tokens FILE: a line a token, "TOKEN ROLE", read for each request, so that tokens may rotate.
//	    admin   may do everything
//	    reader  may list and watch EndpointSlices
//	    nobody  is known, and may do nothing
package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/pflag"
	nooptrace "go.opentelemetry.io/otel/trace/noop"
	"k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	generatedopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/openapi"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/kubernetes/scheme"
	netutils "k8s.io/utils/net"
)

// noServices resolves no webhook: there are none.
type noServices struct{}

func (noServices) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	return nil, fmt.Errorf("there is no service %s/%s", namespace, name)
}

// tokens is the name of the file of tokens.
type tokens string

func (file tokens) AuthenticateToken(_ context.Context, token string) (*authenticator.Response, bool, error) {
	text, err := os.ReadFile(string(file))
	if err != nil {
		return nil, false, err
	}
	for _, line := range strings.Split(string(text), "\n") {
		if words := strings.Fields(line); len(words) == 2 && words[0] == token {
			return &authenticator.Response{User: &user.DefaultInfo{Name: words[1]}}, true, nil
		}
	}
	return nil, false, nil
}

func authorize(_ context.Context, asked authorizer.Attributes) (authorizer.Decision, string, error) {
	who := asked.GetUser().GetName()
	isRead := asked.GetVerb() == "list" || asked.GetVerb() == "watch"
	if who == user.APIServerUser || who == "admin" || who == "reader" && isRead && asked.GetResource() == "endpointslices" {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, who + " has no such rule", nil
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	chosen := options.NewCustomResourceDefinitionsServerOptions(os.Stdout, os.Stderr)
	recommended := chosen.RecommendedOptions
	recommended.Authentication = nil
	recommended.Authorization = nil
	recommended.Admission = nil
	recommended.CoreAPI = nil
	recommended.Features.EnablePriorityAndFairness = false
	flags := pflag.NewFlagSet("apiserver", pflag.ExitOnError)
	tokenFile := flags.String("tokens", "", "file of tokens and roles")
	chosen.ServerRunOptions.AddUniversalFlags(flags)
	recommended.Etcd.AddFlags(flags)
	recommended.SecureServing.AddFlags(flags)
	must(flags.Parse(os.Args[1:]))
	must(chosen.ServerRunOptions.ComponentGlobalsRegistry.Set())
	must(chosen.ServerRunOptions.Complete())
	own := []net.IP{netutils.ParseIPSloppy("127.0.0.1")}
	must(recommended.SecureServing.MaybeDefaultWithSelfSignedCerts("localhost", nil, own))

	config := genericapiserver.NewRecommendedConfig(apiserver.Codecs)
	must(chosen.ServerRunOptions.ApplyTo(&config.Config))
	must(recommended.Etcd.ApplyTo(&config.Config))
	must(recommended.SecureServing.ApplyToConfig(&config.Config))
	must(recommended.Audit.ApplyTo(&config.Config))
	must(chosen.APIEnablement.ApplyTo(&config.Config, apiserver.DefaultAPIResourceConfigSource(), apiserver.Scheme))
	config.Authentication.Authenticator = bearertoken.New(tokens(*tokenFile))
	config.Authorization.Authorizer = authorizer.AuthorizerFunc(authorize)
	namer := openapinamer.NewDefinitionNamer(apiserver.Scheme, scheme.Scheme)
	definitions := openapi.GetOpenAPIDefinitionsWithoutDisabledFeatures(generatedopenapi.GetOpenAPIDefinitions)
	config.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, namer)
	config.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	complete := &apiserver.Config{GenericConfig: config, ExtraConfig: apiserver.ExtraConfig{
		CRDRESTOptionsGetter: options.NewCRDRESTOptionsGetter(*recommended.Etcd, config.ResourceTransformers,
			config.StorageObjectCountTracker),
		ServiceResolver: noServices{},
		AuthResolverWrapper: webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil,
			config.LoopbackClientConfig, nooptrace.NewTracerProvider()),
	}}
	server, err := complete.Complete().New(genericapiserver.NewEmptyDelegate())
	must(err)
	must(server.GenericAPIServer.PrepareRun().RunWithContext(genericapiserver.SetupSignalContext()))
}
