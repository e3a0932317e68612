package server

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/querynode/querynode/internal/objstore"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestOneManifestThatCannotBeReadHidesNoOtherCollection from those who ask what there is.
func TestOneManifestThatCannotBeReadHidesNoOtherCollection(t *testing.T) {
	for _, c := range []struct{ manifest, left string }{{"collections/", "things"}, {"channels/", "broken things"}} {
		t.Run(c.manifest, func(t *testing.T) {
			r := newRig(t, 0)
			conn := r.dial()
			r.create(conn)
			api := qnpb.NewCatalogServiceClient(conn)
			got, err := api.CreateCollection(r.within(), &qnpb.CreateCollectionRequest{Name: "broken", Schema: &qnpb.CollectionSchema{
				Fields: []*qnpb.FieldSchema{{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
					{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: thingDim}}}})
			must(t, err)
			_, err = api.CreateAlias(r.within(), &qnpb.CreateAliasRequest{Collection: "things", Alias: "stuff"})
			must(t, err)
			var key string
			must(t, r.bucket.List(r.within(), "", "", func(i objstore.Info) error {
				if strings.Contains(i.Key, c.manifest) && strings.Contains(i.Key, fmt.Sprint(got.GetCollection().GetId())) {
					key = i.Key
				}
				return nil
			}))
			bad := []byte("garbage")
			_, err = r.bucket.Put(r.within(), key, bytes.NewReader(bad), int64(len(bad)), objstore.PutOptions{})
			must(t, err)

			list, err := api.ListCollections(r.within(), &qnpb.ListCollectionsRequest{})
			must(t, err)
			var names, problems []string
			for _, x := range list.GetCollections() {
				names = append(names, x.GetName())
				problems = append(problems, x.GetProblem())
			}
			problems = append(problems, list.GetUnreadable()...)
			if strings.Join(names, " ") != c.left || !strings.Contains(strings.Join(problems, "\n"), key) {
				t.Errorf("listed are %q, want %s; it says %q, want %s in it", names, c.left, problems, key)
			}
			aliases, err := api.ListAliases(r.within(), &qnpb.ListAliasesRequest{})
			if err != nil || aliases.GetAliases()["stuff"] != "things" {
				t.Errorf("aliases: %v, %v", aliases, err)
			}
			one, err := api.DescribeCollection(r.within(), &qnpb.DescribeCollectionRequest{Collection: "broken"})
			if c.manifest == "collections/" {
				if status.Code(err) != codes.DataLoss || !strings.Contains(err.Error(), key) {
					t.Errorf("describe: %v", err)
				}
			} else if err != nil || !strings.Contains(one.GetCollection().GetProblem(), key) {
				t.Errorf("describe: %v, %v", one, err)
			}
		})
	}
}
