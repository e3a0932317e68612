import org.apache.pulsar.metadata.api.MetadataStoreConfig;
import org.apache.pulsar.metadata.api.extended.MetadataStoreExtended;

/**
 * Takes the registrations of a killed run out of a metadata store, before the next run looks for its own.
 *
 * <p>A bookie that finds its old registration deletes it and writes a new one; when the news of the deletion reaches it only after that,
 * it believes that the new one was deleted, writes it again, and so on for ever, because two equal BookieServiceInfo are not equal to
 * each other. Meanwhile every other ledger cannot be created: "Not enough non-faulty bookies available".
 */
public class ForgetTheDead {
    public static void main(String[] args) throws Exception {
        var config = MetadataStoreConfig.builder().build();
        try (var store = MetadataStoreExtended.create("rocksdb://" + args[0], config)) {
            for (String dir : new String[] {"/ledgers/available", "/ledgers/available/readonly"}) {
                for (String name : store.getChildren(dir).get()) {
                    store.get(dir + "/" + name).get(); // which deletes what another process has written for its own lifetime
                }
            }
        }
        Runtime.getRuntime().halt(0); // there are threads left that nobody waits for
    }
}
